"""Remembers what was last wrong with the answers of each endpoint of the exchange."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.foundation.errors import Code
from app.market.domain.models import Rejection


@dataclass(slots=True)
class ExchangeWatch:
    """The newest answer of an endpoint, about a symbol where it has one, replaces the former.

    So what was wrong is over as soon as the same question is answered rightly.
    """

    _outcomes: dict[str, str] = field(default_factory=dict)  # path -> "ok" or an error code
    _refused: dict[tuple[str, str], tuple[Rejection, ...]] = field(default_factory=dict)

    def requested(self, path: str, outcome: str, seconds: float) -> None:
        """One request to the path template has ended."""
        del seconds
        self._outcomes[path] = outcome

    def answered(self, path: str, symbol: str, refused: Sequence[Rejection]) -> None:
        """An answer was read; `refused` are those of its records that made no sense."""
        if refused:
            self._refused[path, symbol] = tuple(refused)
        else:
            self._refused.pop((path, symbol), None)

    def redirected(self) -> tuple[str, ...]:
        """Endpoints whose last answer pointed to another address."""
        return tuple(
            sorted(
                path
                for path, outcome in self._outcomes.items()
                if outcome == Code.EXCHANGE_REDIRECTED
            )
        )

    def refused(self) -> tuple[tuple[str, str, Rejection], ...]:
        """Path, contract code and record of everything that is refused at present."""
        return tuple(
            (path, symbol or record.key, record)
            for (path, symbol), records in sorted(self._refused.items())
            for record in records
        )
