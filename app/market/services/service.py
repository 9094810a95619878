"""Market data service: refreshes the live market, stores lasting values, and answers queries."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from weakref import ref

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
from app.market.services.feed_leader import Fence, no_fencing
from app.market.services.fetcher import Fetcher
from app.market.services.health_facts import MarketFacts, market_facts
from app.market.services.open_interest import OpenInterestRecorder
from app.market.services.ports import Exchange
from app.market.services.quality_monitor import QualityMonitor
from app.market.services.quote_book import QuoteBook
from app.market.services.service_mode import MarketLevel
from app.market.services.snapshot import (
    MarketMoment,
    PanelCache,
    QuoteView,
    count_in_thread,
    eligible,
    history_candidates,
)
from app.market.services.state import NOT_STARTED, FillProgress, FillQueue, LiveMarket, joined
from app.market.services.symbol_registry import Registry, SyncSummary
from app.market.services.view import (
    MarketView,
    MomentView,
    Quote,
    QuoteSnapshot,
    quote_until,
)
from app.market.storage.candles import CandleRepository

_log = structlog.get_logger("market_data")

COMPLETE: Final = "complete"
FIRST_BOOKS_S: Final = 60.0  # rotation period of the books of members and candidates
BOOK_WEIGHT: Final = 10  # of the quota
QUOTA_SHARE: Final = 0.5  # share of our quota for the rotation of books
WHOLE_QUOTA: Final = 2_000  # of the exchange, in 30 s
BOOKS_PER_S: Final = QUOTA_SHARE * WHOLE_QUOTA / 30.0 / BOOK_WEIGHT
_NEVER: Final = float("-inf")
WHOLE: Final = 10_000  # symbols: a new bar becomes visible for all of them at once


async def no_replacements() -> Collection[str]:
    """Default of `open_replacements`, without a portfolio."""
    return ()


@dataclass(slots=True)
class MarketData:
    """Live market state in memory, replaced as a whole; lasting values go to the database.

    Every served number carries its age; nothing older than its limit is called fresh.
    """

    exchange: Exchange
    database: Database
    registry: Registry
    configuration: Callable[[], Configuration]
    clock: Clock
    monotonic: Monotonic
    metrics: Metrics
    workers: int = 12
    is_streamed: bool = False  # the configured feed mode, whatever the present one is
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    # Only the feed's owner talks to the exchange; other processes send it requests.
    is_owner: Callable[[], bool] = lambda: True
    fence: Fence = no_fencing  # refuses writes of a process that lost the feed
    remote_sync: Callable[[], Awaitable[SyncSummary]] | None = None
    open_replacements: Callable[[], Awaitable[Collection[str]]] = (
        no_replacements  # ids of both sides
    )
    books_per_s: float = BOOKS_PER_S  # rate of the rotation with the whole quota
    quota_share: Callable[[], float] = lambda: 1.0  # this process's current share of the quota
    fill: FillProgress = NOT_STARTED
    scorable: asyncio.Event = field(default_factory=asyncio.Event)  # a first board can be computed
    filled: asyncio.Event = field(default_factory=asyncio.Event)  # the first fill is complete
    filling: FillQueue = field(default_factory=FillQueue)
    server_clock: ServerClock = field(init=False)
    live: LiveMarket = field(init=False)
    fetch: Fetcher = field(init=False)
    open_interest: OpenInterestRecorder = field(init=False)
    quality: QualityMonitor = field(init=False)
    quotes: QuoteBook = field(init=False)
    _memory: ViewCache = field(default_factory=ViewCache, init=False, repr=False)
    _scored_panels: PanelCache = field(default_factory=PanelCache, init=False, repr=False)
    _reading_bars: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _recalled: bool = field(default=False, init=False)
    trading: ExchangeStatus | None = field(default=None, init=False)  # last known status
    _level: MarketLevel | None = field(default=None, init=False, repr=False)
    _panels: dict[Interval, tuple[object, object, Panel]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        self.server_clock = ServerClock(self.exchange, self.clock, self.monotonic)
        self.registry.no_earlier = self.server_clock.no_earlier
        self.live = LiveMarket(self.server_clock, self.monotonic)
        shared = self.exchange, self.database, self.live, self.metrics, self.workers
        self.fetch = Fetcher(*shared, self.sleep, self.fence, self.registry.is_current)
        self.open_interest = OpenInterestRecorder(self.database, self.live, self.fence)
        self.quotes = QuoteBook(self.live, lambda: self.configuration().quality)
        self.quality = QualityMonitor(self.database, self.live, self.moment, self.fence, self.sleep)

    @property
    def source(self) -> DataSource:
        return self.exchange.source

    def moment(self) -> MarketMoment:
        """Returns an immutable view of the present market."""
        return MarketMoment(
            self.live.market,
            self.registry.known,
            self.configuration(),
            self.registry.sectors,
            self.monotonic(),
            self.server_clock.now_ms(),
            self._memory,
            self._scored_panels,
            self.server_clock.uncertainty_s,
            self.is_streamed,
        )

    def under(self, configuration: Configuration) -> MarketView:
        """Returns the present market as other settings judge it."""
        return QuoteSnapshot(MomentView(self, self.moment().under(configuration)))

    def resolve(self, text: str) -> SymbolEntry:
        """Raises RefusedError (symbol_unknown, symbol_ambiguous)."""
        return self.registry.resolve(text)

    def quote(self, symbol: str) -> Quote | None:
        """Returns contract and prices of a standard symbol; None for an unknown one."""
        # Weak: seldom asked symbols would each keep another former market in memory.
        depends_on = (
            ref(self.live.market), ref(self.registry.known), self.configuration(),
            self.registry.sectors,
        )  # fmt: skip
        return self._memory.get_until(
            symbol, depends_on, self.monotonic(), lambda: quote_until(self.moment(), symbol)
        )

    def view(self, entry: SymbolEntry) -> QuoteView:
        """Returns all market values of one symbol, with the age of each part."""
        return self.moment().quote(entry)

    async def candles(
        self, entry: SymbolEntry, interval: Interval, start_ms: int, end_ms: int, limit: int
    ) -> CandleSeries:
        """Returns the first `limit` stored closed candles opened in [start_ms, end_ms)."""
        async with self.database.read() as unit:
            return await unit.get(CandleRepository).page(
                entry.symbol_id, interval, start_ms, end_ms, limit
            )

    def is_filled(self) -> bool:
        """True if everything that scoring reads has been requested since the start."""
        return self.filled.is_set()

    def is_halted(self) -> bool:
        """True if the exchange as a whole reports that it does not trade."""
        return self.trading is not None and self.trading is not ExchangeStatus.OPEN

    def panel(self, interval: Interval) -> Panel | None:
        """Returns closed bars of the symbols that have any; None before the first fill."""
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
        """Returns the level for a count of stale symbols; the same object while nothing changes."""
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
        """True if the exchange's time is certain enough for decisions."""
        return self.server_clock.is_safe

    def as_of(self) -> datetime | None:
        return self.moment().as_of()

    def facts(self) -> MarketFacts:
        """Returns figures for health and status."""
        return market_facts(
            self.moment(), self.source, self.fill, is_clock_safe=self.is_clock_safe()
        )

    # --- requests to the exchange

    async def sync_contracts(self) -> SyncSummary:
        """Syncs the contract list, through the feed's owner where that is another process."""
        if self.remote_sync is None or self.is_owner():
            return await self.fetch_contracts()
        return await self.remote_sync()

    async def fetch_contracts(self) -> SyncSummary:
        """Fetches the contract list with its statistics."""
        former = self.registry.known
        listing, summary = await self.registry.sync()
        self.live.forget(self.registry.known.relisted_since(former))
        # the adapter has counted its own rejections
        names = len(summary.rejections) - len(listing.rejections)
        self.metrics.exchange_rejected_records.labels("contract names", "symbol").inc(names)
        relisted_codes = self.registry.relisted_codes
        stats = {
            one.code: self.live.received(one)
            for one in listing.stats
            if one.code not in relisted_codes
        }
        market = self.live.market
        self.live.publish(replace(market, stats=joined(market.stats, stats)), Source.CONTRACTS)
        await self.open_interest.record(self.moment())
        return summary

    async def refresh_market(self) -> None:
        """Refreshes clock, contracts, tickers and exchange status, once a minute."""
        await self.sync_clock()
        await self.fetch_contracts()
        await self.refresh_tickers()
        try:
            self.trading = await self.exchange.status()
        except ServiceError as error:
            # the quotes have arrived; the last known status stays
            _log.warning("exchange_status_unknown", cause=str(error.code))

    async def refresh_tickers(self, *, after_gap: bool = False) -> None:
        """Polls all quotes and judges their quality."""
        if self.server_clock.wall_step_s:  # the machine may have slept
            await self.sync_clock()
        sent = self.monotonic()
        listing = await self.exchange.tickers()
        relisted_codes = self.registry.relisted_codes
        known = [one for one in listing.tickers if one.code not in relisted_codes]
        late = self.quotes.apply_polled(known, sent, after_gap=after_gap)
        self.metrics.exchange_rejected_records.labels("untimely tickers", "ts").inc(late)
        await self.quality.check()

    async def refresh_candles(self) -> None:
        """Fetches bars that have closed since, for the symbols worth it."""
        async with self._reading_bars:  # a second caller finds nothing left to fetch
            await self.sync_clock()
            await self.fetch.candles(self.history_candidates(), Interval.DAY, batch=WHOLE)
            await self.fetch.candles(await self.eligible_in_thread(), Interval.HOUR, batch=WHOLE)

    async def recall(self) -> None:
        """Loads stored values once after the start."""
        if not self._recalled:
            await self.fetch.load(self.registry.index.entries)
            await self.open_interest.load(self.registry.index.entries)
            self._recalled = True

    async def refresh_books(self, step_s: float, first: Collection[str] = ()) -> None:
        """Fetches the next part of the rotation: the books with the oldest requests.

        Traded symbols of `first`, eligible or not, come round within `FIRST_BOOKS_S`; all others
        within the books' interval. Overdue ones come at once. Together they take at most
        `books_per_s` of this process's share of the quota. Where that is too little, neither kind
        takes more than half of it from the other.
        """
        entries = await self.eligible_in_thread()
        update_interval_s = self.configuration().intervals.order_books_s
        close = {one.symbol: one for one in map(self._traded, first) if one is not None}
        rest = [one for one in entries if one.symbol not in close]
        ahead = self._next_books(close.values(), step_s, min(FIRST_BOOKS_S, update_interval_s))
        others = self._next_books(rest, step_s, update_interval_s)
        most = max(2, int(self.books_per_s * self.quota_share() * step_s))
        ahead = ahead[: most - min(len(others), most // 2)]
        await self.fetch.books([*ahead, *others[: most - len(ahead)]])

    def _next_books(
        self, entries: Collection[SymbolEntry], step_s: float, period_s: float
    ) -> list[SymbolEntry]:
        """Returns the entries due in this step of a rotation of `period_s`, the oldest first."""
        now, current = self.monotonic(), self.live.market.deep_books

        def seen(one: SymbolEntry) -> float:
            code = one.contract.code
            return current[code].mono if code in current else _NEVER

        oldest = sorted(entries, key=lambda one: (seen(one), one.symbol))
        overdue = sum(now - seen(one) > period_s for one in oldest)
        share = math.ceil(len(oldest) * min(1.0, step_s / period_s))
        return oldest[: max(overdue, share)]

    def _traded(self, symbol: str) -> SymbolEntry | None:
        entry = self.registry.index.find(symbol)
        is_open = entry is not None and entry.contract.status is ContractStatus.OPEN
        return entry if is_open else None

    async def refresh_funding(self) -> None:
        """Fetches newly settled rates of all symbols whose costs are needed."""
        await self.fetch.funding(await self.funding_candidates())

    async def funding_candidates(self) -> tuple[SymbolEntry, ...]:
        """Returns eligible symbols, members, and both sides of replacements still in the ledger.

        A symbol that declined leaves the funnel: without it the figures of replacements would cover
        only the survivors.
        """
        entries = dict.fromkeys(await self.eligible_in_thread())
        for key in (*await self.registry.member_codes(), *await self.open_replacements()):
            entry = self.registry.index.find(key)
            if entry is not None and entry.contract.status is not ContractStatus.VANISHED:
                entries[entry] = None
        return tuple(entries)

    async def sync_clock(self) -> None:
        try:
            await self.server_clock.sync()
        finally:
            if missed_s := self.server_clock.take_missed_s():
                _log.warning("clock_gap", seconds=round(missed_s, 1))
                self.live.age_by(missed_s)

    def history_candidates(self) -> tuple[SymbolEntry, ...]:
        """Returns symbols that pass the rules on listing and turnover, the most traded first."""
        return history_candidates(self.moment())

    def eligible(self) -> tuple[SymbolEntry, ...]:
        """Returns symbols that pass the whole funnel, the most traded first."""
        return eligible(self.moment())

    async def eligible_in_thread(self) -> tuple[SymbolEntry, ...]:
        """Computes `eligible` in a thread."""
        return await asyncio.to_thread(eligible, self.moment())

    async def count(self) -> None:
        """Computes the number of eligible symbols for `facts`."""
        await count_in_thread(self.moment())
