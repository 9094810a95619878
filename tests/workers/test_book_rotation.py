"""The rotation of the books asks who comes first, and goes on without knowing."""

from dataclasses import dataclass, field
from typing import Any, cast

from app.configuration.domain.model import Configuration, IntervalSettings
from app.foundation.errors import Code, UnavailableError
from app.my_symbols import MySymbolsServiceV2
from app.workers.activities import activities


@dataclass
class Face:
    """The part of the service that the rotation uses; `watched` None is a database that is away."""

    watched: tuple[str, ...] | None
    asked: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)

    @property
    def market(self) -> Any:
        return self

    @property
    def controls(self) -> Any:
        return self

    def configuration(self) -> Configuration:
        return Configuration(intervals=IntervalSettings(order_book_batch_s=7))

    def __getattr__(self, _name: str) -> Any:
        return self  # the other activities are bound, and not called here

    @property
    def scoring(self) -> Any:
        return self

    def best(self, count: int) -> tuple[str, ...]:
        return BEST[:count]

    async def first_symbols(self) -> tuple[str, ...]:
        if self.watched is None:
            raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away", retry_after_s=1)
        return self.watched

    async def refresh_books(self, step_s: float, first: tuple[str, ...]) -> None:
        self.asked.append((step_s, first))


BEST = ("SOLUSDT", "ETHUSDT")


async def test_members_watched_and_the_best_come_first_and_the_rotation_outlives_the_database() -> (
    None
):
    for watched, expected in ((("BTCUSDT",), ("BTCUSDT", *BEST)), (None, BEST)):
        face = Face(watched)
        work = activities(cast("MySymbolsServiceV2", face), cast("Any", face), lambda: "request-1")
        await work.books()
        assert face.asked == [(7, expected)]
