"""First fill in the order that allows an early board: it is possible after minutes."""

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

FIRST_BOOKS: Final = 30  # of the most traded symbols: enough for a first, provisional board
STAGES: Final = (
    "contracts",
    "daily_candles",
    "first_books",
    "books",
    "funding",
    "hourly_candles",
    COMPLETE,
)


def ignore_progress(stage: str, done: int, total: int) -> None:
    """Progress callback that does nothing."""


async def first_fill(data: MarketData, progress: Progress = ignore_progress) -> None:
    """Loads everything that a scoring run reads.

    Stored values, and values received before an outage, are not requested again: another call
    continues. A call during a running fill reports the progress of that fill, waits, and finds its
    work done. `data.scorable` is set after the first books, `data.filled` at the end. Raises
    UnavailableError when the exchange does not answer; failures of single symbols are logged and
    skipped. In a process that does not own the feed the call waits for the owner's fill.
    """
    if not data.is_owner():
        await data.filled.wait()
        return
    async with data.filling.wait_turn(progress):
        await _Fill(data).run()


@dataclass(frozen=True, slots=True)
class _Fill:
    data: MarketData

    async def run(self) -> None:
        data = self.data
        self.report("contracts", 0, 1)
        await data.sync_clock()
        await data.recall()
        await data.refresh_market()
        self.report("contracts", 1, 1)
        await self.stage("daily_candles", data.history_candidates(), self.candles(Interval.DAY))
        await self.stage("first_books", self.bookless()[:FIRST_BOOKS], data.fetch.books)
        data.scorable.set()
        await self.stage("books", self.bookless(), data.fetch.books)
        cadence_s, rates = data.configuration().intervals.funding_s, data.live.market.funding
        unpaid = _due(data, await data.funding_candidates(), rates, cadence_s)
        await self.stage("funding", unpaid, data.fetch.funding)
        await self.stage("hourly_candles", data.eligible(), self.candles(Interval.HOUR))
        # Only symbols requested late have a bar that closed meanwhile: fetch it for all.
        await data.refresh_candles()
        # Books are scored up to the market's known time: move it past all of them.
        await data.refresh_market()
        data.filled.set()
        self.report(COMPLETE, 1, 1)

    def bookless(self) -> Sequence[SymbolEntry]:
        cadence_s = self.data.configuration().intervals.order_books_s
        return _due(self.data, self.data.eligible(), self.data.live.market.deep_books, cadence_s)

    async def stage(self, name: str, entries: Sequence[SymbolEntry], fetch: Fetch) -> None:
        counted = count(1)
        self.report(name, 0, len(entries))
        await fetch(entries, lambda: self.report(name, next(counted), len(entries)))

    def candles(self, interval: Interval) -> Fetch:
        return lambda entries, done: self.data.fetch.candles(entries, interval, done)

    def report(self, stage: str, done: int, total: int) -> None:
        self.data.fill = FillProgress(stage, done, total)
        self.data.filling.report(stage, done, total)


def _due(
    data: MarketData,
    entries: Sequence[SymbolEntry],
    received: Mapping[str, Received[object]],
    cadence_s: float,
) -> Sequence[SymbolEntry]:
    """Entries without a value, or with a value older than `cadence_s`."""
    now = data.monotonic()
    return [
        entry
        for entry in entries
        if (one := received.get(entry.contract.code)) is None or now - one.mono > cadence_s
    ]
