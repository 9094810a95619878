"""The one owner of live market state: refreshes it, stores what lasts, answers from it."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import structlog

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Source
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import ServiceError
from app.foundation.memoize import ViewCache
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock, Monotonic
from app.foundation.sql.database import Database
from app.market.domain.eligibility import Funnel, RuleCheck
from app.market.domain.models import CandleSeries, ContractStatus, ExchangeStatus, Interval
from app.market.domain.panel import Panel, ScoringInputs
from app.market.domain.symbols import SymbolEntry
from app.market.services.exchange_clock import ServerClock
from app.market.services.feed_leader import Fence, anybody
from app.market.services.fetcher import Fetcher
from app.market.services.health_facts import MarketFacts, market_facts
from app.market.services.open_interest import OpenInterestKeeper
from app.market.services.ports import Exchange
from app.market.services.quality_monitor import QualityKeeper
from app.market.services.quote_book import MarketQuotes
from app.market.services.service_mode import MarketLevel
from app.market.services.snapshot import (
    MarketMoment,
    PanelCache,
    QuoteView,
    count_aside,
    eligible,
    worth,
)
from app.market.services.state import NOT_STARTED, Filling, FillProgress, LiveMarket, joined
from app.market.services.symbol_registry import Registry, SyncSummary
from app.market.services.view import Quote, quoted
from app.market.storage.candles import CandleRepository

_log = structlog.get_logger("market_data")

COMPLETE: Final = "complete"
FIRST_BOOKS_S: Final = 60.0  # within it the books of members and candidates come round
BOOK_WEIGHT: Final = 10  # of the quota
QUOTA_SHARE: Final = 0.5  # of our quota, for the rotation of books
WHOLE_QUOTA: Final = 2_000  # of the exchange, in 30 s
BOOKS_PER_S: Final = QUOTA_SHARE * WHOLE_QUOTA / 30.0 / BOOK_WEIGHT
_NEVER: Final = float("-inf")
WHOLE: Final = 10_000  # symbols: a new bar comes to all of them at once


async def no_swaps() -> Collection[str]:
    """The value of `open_swaps` where no portfolio is kept."""
    return ()


@dataclass(slots=True)
class MarketData:
    """Live state in memory, replaced as a whole; what outlives a restart goes to the database.

    Every number served carries its age; nothing older than its limit is called fresh.
    """

    exchange: Exchange
    database: Database
    registry: Registry
    configuration: Callable[[], Configuration]
    clock: Clock
    monotonic: Monotonic
    metrics: Metrics
    workers: int = 12
    is_streamed: bool = False  # the configured feed mode, whatever the stream does at the moment
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    # Only the owner of the feed talks to the exchange; the others have it do so.
    is_owner: Callable[[], bool] = lambda: True
    fence: Fence = anybody  # of what is stored: who has lost the feed writes nothing more
    remote_sync: Callable[[], Awaitable[SyncSummary]] | None = None
    open_swaps: Callable[[], Awaitable[Collection[str]]] = no_swaps  # ids of both sides
    books_per_s: float = BOOKS_PER_S  # of the rotation, with the whole quota: half of it
    quota_share: Callable[[], float] = lambda: 1.0  # part of the quota that this process has now
    fill: FillProgress = NOT_STARTED
    scorable: asyncio.Event = field(default_factory=asyncio.Event)  # a first board can be made
    filled: asyncio.Event = field(default_factory=asyncio.Event)  # the first fill is complete
    filling: Filling = field(default_factory=Filling)
    server_clock: ServerClock = field(init=False)
    live: LiveMarket = field(init=False)
    fetch: Fetcher = field(init=False)
    open_interest: OpenInterestKeeper = field(init=False)
    quality: QualityKeeper = field(init=False)
    quotes: MarketQuotes = field(init=False)
    _memory: ViewCache = field(default_factory=ViewCache, init=False, repr=False)
    _scored_panels: PanelCache = field(default_factory=PanelCache, init=False, repr=False)
    _reading_bars: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _recalled: bool = field(default=False, init=False)
    trading: ExchangeStatus | None = field(default=None, init=False)  # as it last said
    _level: MarketLevel | None = field(default=None, init=False, repr=False)
    _panels: dict[Interval, tuple[object, object, Panel]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        self.server_clock = ServerClock(self.exchange, self.clock, self.monotonic)
        self.live = LiveMarket(self.server_clock, self.monotonic)
        asked = self.exchange, self.database, self.live, self.metrics, self.workers
        self.fetch = Fetcher(*asked, self.sleep, self.fence, self.registry.has)
        self.open_interest = OpenInterestKeeper(self.database, self.live, self.fence)
        self.quotes = MarketQuotes(self.live, lambda: self.configuration().quality)
        self.quality = QualityKeeper(self.database, self.live, self.moment, self.fence, self.sleep)

    @property
    def source(self) -> DataSource:
        return self.exchange.source

    def moment(self) -> MarketMoment:
        """Everything as it stands now; later changes do not reach it."""
        return MarketMoment(
            self.live.market,
            self.registry.known,
            self.configuration(),
            self.registry.sectors,
            self.monotonic(),
            self.server_clock.now_ms(),
            self._memory,
            self._scored_panels,
            self.server_clock.doubt_s,
            self.is_streamed,
        )

    def resolve(self, text: str) -> SymbolEntry:
        """Raises RefusedError (symbol_unknown, symbol_ambiguous)."""
        return self.registry.resolve(text)

    def quote(self, symbol: str) -> Quote | None:
        """Contract and prices of a standard symbol; None for one that was never seen."""
        rests_on = (self.live.market, self.registry.known, self.configuration())
        return self._memory.get_until(
            symbol, rests_on, self.monotonic(), lambda: quoted(self.moment(), symbol)
        )

    def view(self, entry: SymbolEntry) -> QuoteView:
        """Everything the market shows of one symbol, with the age of each part."""
        return self.moment().quote(entry)

    async def candles(
        self, entry: SymbolEntry, interval: Interval, start_ms: int, end_ms: int, limit: int
    ) -> CandleSeries:
        """The first `limit` closed candles opened in [start_ms, end_ms), as they were stored."""
        async with self.database.read() as unit:
            return await unit.get(CandleRepository).page(
                entry.symbol_id, interval, start_ms, end_ms, limit
            )

    def is_filled(self) -> bool:
        """Whether everything that a scoring reads has been asked for since the start."""
        return self.filled.is_set()

    def is_halted(self) -> bool:
        """Whether the exchange as a whole said that it does not trade."""
        return self.trading is not None and self.trading is not ExchangeStatus.OPEN

    def panel(self, interval: Interval) -> Panel | None:
        """Closed bars of the symbols that have any; None before the first fill."""
        series, known = self.live.market.series(interval), self.registry.known.index
        if not series:
            return None
        cached = self._panels.get(interval)
        if cached is None or cached[0] is not series or cached[1] is not known:
            cached = (series, known, self.moment().panel(interval))
            self._panels[interval] = cached
        return cached[2]

    def scoring_inputs(self) -> ScoringInputs:
        return self.moment().scoring_inputs()

    def funnel(self) -> Funnel:
        return self.moment().funnel()

    def eligibility(self, entry: SymbolEntry) -> tuple[RuleCheck, ...]:
        return self.moment().eligibility(entry)

    def status(self) -> DataStatus:
        depends_on = (self.live.market.answers, self.is_streamed, self.configuration())
        return self._memory.get_until(
            "status", depends_on, self.monotonic(), lambda: self.moment().status_until()
        )

    def level(self) -> MarketLevel:
        return self.level_with(self.stale_symbols())

    def level_with(self, stale_symbols: int) -> MarketLevel:
        """The level with a count that was made before; the same object while nothing changes."""
        status, is_safe, last = self.status(), self.server_clock.is_safe, self._level
        if (
            last is None
            or last.status is not status
            or last.stale_symbols != stale_symbols
            or last.is_clock_safe is not is_safe
        ):
            last = self._level = MarketLevel(status, stale_symbols, is_safe)
        return last

    def stale_symbols(self) -> int:
        market, registry = self.live.market, self.registry
        depends_on = (
            market.stats, market.tickers, market.diverged,
            registry.known, registry.sectors, self.configuration(), self.is_streamed,
        )  # fmt: skip
        return self._memory.get_until(
            "stale_symbols", depends_on, self.monotonic(),
            lambda: self.moment().stale_symbols_until(),
        )  # fmt: skip

    def is_clock_safe(self) -> bool:
        """Whether the exchange's time is known well enough to decide by."""
        return self.server_clock.is_safe

    def as_of(self) -> datetime | None:
        return self.moment().as_of()

    def facts(self) -> MarketFacts:
        """What health and status say of it."""
        said = self.moment(), self.source, self.fill
        return market_facts(*said, is_clock_safe=self.is_clock_safe())

    # --- what it asks for

    async def sync_contracts(self) -> SyncSummary:
        """The list of contracts now, asked for by the owner of the feed."""
        if self.remote_sync is None or self.is_owner():
            return await self.fetch_contracts()
        return await self.remote_sync()

    async def fetch_contracts(self) -> SyncSummary:
        """The list of contracts with everything that moves in it."""
        former = self.registry.known
        listing, summary = await self.registry.sync()
        self.live.forget(self.registry.known.others_than(former))
        # what the adapter refused it has counted itself
        names = len(summary.rejections) - len(listing.rejections)
        self.metrics.exchange_rejected_records.labels("contract names", "symbol").inc(names)
        strangers = self.registry.strangers
        stats = {
            one.code: self.live.received(one) for one in listing.stats if one.code not in strangers
        }
        market = self.live.market
        self.live.publish(replace(market, stats=joined(market.stats, stats)), Source.CONTRACTS)
        await self.open_interest.note(self.moment())
        return summary

    async def refresh_market(self) -> None:
        """Clock, contracts, tickers and the state of the exchange: the tick of every minute."""
        await self.sync_clock()
        await self.fetch_contracts()
        await self.refresh_tickers()
        try:
            self.trading = await self.exchange.status()
        except ServiceError as error:
            # the quotes are here; whether trading is halted stays as it was last said
            _log.warning("exchange_status_unknown", cause=str(error.code))

    async def refresh_tickers(self, *, after_gap: bool = False) -> None:
        """All quotes as the exchange answers them, and a look at their quality."""
        if self.server_clock.stepped_s:  # first of all: have we slept?
            await self.sync_clock()
        sent = self.monotonic()
        listing = await self.exchange.tickers()
        strangers = self.registry.strangers
        known = [one for one in listing.tickers if one.code not in strangers]
        late = self.quotes.answered(known, sent, after_gap=after_gap)
        self.metrics.exchange_rejected_records.labels("untimely tickers", "ts").inc(late)
        await self.quality.look()

    async def refresh_candles(self) -> None:
        """Bars that have closed since, for the symbols that they pay for."""
        async with self._reading_bars:  # whoever comes second finds nothing left to ask for
            await self.sync_clock()
            await self.fetch.candles(self.worth_history(), Interval.DAY, batch=WHOLE)
            await self.fetch.candles(await self.eligible_aside(), Interval.HOUR, batch=WHOLE)

    async def recall(self) -> None:
        """Take up what was stored before this start, once."""
        if not self._recalled:
            await self.fetch.load(self.registry.index.entries)
            await self.open_interest.load(self.registry.index.entries)
            self._recalled = True

    async def refresh_books(self, step_s: float, first: Collection[str] = ()) -> None:
        """Ask for the next part of the rotation: the books that were not asked for longest.

        The symbols of `first` come round within `FIRST_BOOKS_S`, eligible or not, as long as they
        are traded; all others within the cadence of books. Overdue ones come at once. Together
        they take no more than `books_per_s` of this process's share of the quota; where that is
        too little, neither kind takes more than half of it from the other.
        """
        entries = await self.eligible_aside()
        cadence_s = self.configuration().intervals.order_books_s
        close = {one.symbol: one for one in map(self._traded, first) if one is not None}
        rest = [one for one in entries if one.symbol not in close]
        ahead = self._next_books(close.values(), step_s, min(FIRST_BOOKS_S, cadence_s))
        others = self._next_books(rest, step_s, cadence_s)
        most = max(2, int(self.books_per_s * self.quota_share() * step_s))
        ahead = ahead[: most - min(len(others), most // 2)]
        await self.fetch.books([*ahead, *others[: most - len(ahead)]])

    def _next_books(
        self, entries: Collection[SymbolEntry], step_s: float, period_s: float
    ) -> list[SymbolEntry]:
        """Those due in this step of a rotation of `period_s`, the oldest first."""
        now, held = self.monotonic(), self.live.market.deep_books

        def seen(one: SymbolEntry) -> float:
            code = one.contract.code
            return held[code].mono if code in held else _NEVER

        oldest = sorted(entries, key=lambda one: (seen(one), one.symbol))
        overdue = sum(now - seen(one) > period_s for one in oldest)
        share = math.ceil(len(oldest) * min(1.0, step_s / period_s))
        return oldest[: max(overdue, share)]

    def _traded(self, symbol: str) -> SymbolEntry | None:
        entry = self.registry.index.find(symbol)
        is_open = entry is not None and entry.contract.status is ContractStatus.OPEN
        return entry if is_open else None

    async def refresh_funding(self) -> None:
        """Rates that were settled since the last known ones of all symbols with costs to know."""
        await self.fetch.funding(await self.with_funding())

    async def with_funding(self) -> tuple[SymbolEntry, ...]:
        """Eligible symbols, members, and both sides of the swaps that the ledger still values.

        A symbol that declined leaves the funnel: without it the figures of swaps would cover only
        the survivors.
        """
        entries = dict.fromkeys(await self.eligible_aside())
        for key in (*await self.registry.held(), *await self.open_swaps()):
            entry = self.registry.index.find(key)
            if entry is not None and entry.contract.status is not ContractStatus.VANISHED:
                entries[entry] = None
        return tuple(entries)

    async def sync_clock(self) -> None:
        try:
            await self.server_clock.sync()
        finally:
            if missed_s := self.server_clock.missed_s():
                _log.warning("time_was_missed", seconds=round(missed_s, 1))
                self.live.slept(missed_s)

    def worth_history(self) -> tuple[SymbolEntry, ...]:
        """Symbols that listing and turnover let through, the most traded first."""
        return worth(self.moment())

    def eligible(self) -> tuple[SymbolEntry, ...]:
        """Symbols that pass the whole funnel, the most traded first."""
        return eligible(self.moment())

    async def eligible_aside(self) -> tuple[SymbolEntry, ...]:
        """The same, worked out in a thread."""
        return await asyncio.to_thread(eligible, self.moment())

    async def count(self) -> None:
        """Has the number of the eligible ready for `facts`."""
        await count_aside(self.moment())
