"""The first fill, in the order that pays: a first board after minutes, the rest behind it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from app.market.domain.models import Interval
from app.market.domain.symbols import SymbolEntry
from app.market.services.fetcher import Failures
from app.market.services.service import COMPLETE, MarketData
from app.market.services.state import FillProgress, Received

Progress = Callable[[str, int, int], None]  # stage, done, total
Fetch = Callable[[Sequence[SymbolEntry], Callable[[], None]], Awaitable[Failures]]

FIRST_BOOKS: Final = 30  # of the most traded: enough for a first board, which is provisional
STAGES: Final = (
    "contracts",
    "daily_candles",
    "first_books",
    "books",
    "funding",
    "hourly_candles",
    COMPLETE,
)


def unheard(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


async def first_fill(data: MarketData, progress: Progress = unheard) -> None:
    """Bring everything up to date that a scoring reads.

    What was stored before, or came in before an outage, is not asked for again: calling it again
    goes on, and who calls it while it runs hears how far that is, waits and finds the work done.
    After the first books `data.scorable` is set, at the end `data.filled`. Raises UnavailableError
    when the exchange does not answer; the failure of a single symbol is reported and passed over.
    Where another process reads the exchange for all, it waits until that has brought everything.
    """
    if not data.is_owner():
        await data.filled.wait()
        return
    async with data.filling.turn(progress):
        await _Fill(data).run()


@dataclass(frozen=True, slots=True)
class _Fill:
    data: MarketData

    async def run(self) -> None:
        data = self.data
        self.tell("contracts", 0, 1)
        await data.sync_clock()
        await data.recall()
        await data.refresh_market()
        self.tell("contracts", 1, 1)
        await self.stage("daily_candles", data.worth_history(), self.candles(Interval.DAY))
        await self.stage("first_books", self.bookless()[:FIRST_BOOKS], data.fetch.books)
        data.scorable.set()
        await self.stage("books", self.bookless(), data.fetch.books)
        cadence_s, rates = data.configuration().intervals.funding_s, data.live.market.funding
        unpaid = _due(data, await data.with_funding(), rates, cadence_s)
        await self.stage("funding", unpaid, data.fetch.funding)
        await self.stage("hourly_candles", data.eligible(), self.candles(Interval.HOUR))
        # A bar that closed meanwhile is there only for who was asked late: now for everybody.
        await data.refresh_candles()
        # Books are scored up to the time up to which the market is known: now that of all of them.
        await data.refresh_market()
        data.filled.set()
        self.tell(COMPLETE, 1, 1)

    def bookless(self) -> Sequence[SymbolEntry]:
        cadence_s = self.data.configuration().intervals.order_books_s
        return _due(self.data, self.data.eligible(), self.data.live.market.deep_books, cadence_s)

    async def stage(self, name: str, entries: Sequence[SymbolEntry], fetch: Fetch) -> None:
        counted = count(1)
        self.tell(name, 0, len(entries))
        await fetch(entries, lambda: self.tell(name, next(counted), len(entries)))

    def candles(self, interval: Interval) -> Fetch:
        return lambda entries, done: self.data.fetch.candles(entries, interval, done)

    def tell(self, stage: str, done: int, total: int) -> None:
        self.data.fill = FillProgress(stage, done, total)
        self.data.filling.tell(stage, done, total)


def _due(
    data: MarketData,
    entries: Sequence[SymbolEntry],
    held: Mapping[str, Received[object]],
    cadence_s: float,
) -> Sequence[SymbolEntry]:
    """Those of whom nothing is held, or nothing younger than a cadence."""
    now = data.monotonic()
    return [
        entry
        for entry in entries
        if (one := held.get(entry.contract.code)) is None or now - one.mono > cadence_s
    ]
