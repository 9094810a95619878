"""Immutable view of the market at one moment: funnel, quotes, freshness, scoring inputs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

import numpy as np

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Source
from app.foundation.data_status import DataStatus
from app.foundation.memoize import ViewCache
from app.market.domain.data_quality import closed_by_ms, freshness, worst
from app.market.domain.eligibility import (
    DAILY_BARS_RULE,
    TURNOVER_24H,
    EligibilityCandidate,
    EligibilityLimits,
    Funnel,
    RuleCheck,
    check_rules,
    is_worth_history,
)
from app.market.domain.liquidity import depth
from app.market.domain.models import (
    Book,
    CandleSeries,
    Contract,
    ContractStatus,
    Floats,
    Funding,
    Interval,
)
from app.market.domain.panel import Panel, ScoringInputs
from app.market.domain.sectors import SectorTable
from app.market.domain.symbols import SymbolEntry, base_quantity
from app.market.domain.trade_flow import MINUTE_MS, TradeFlow, TradeWindow
from app.market.services.eligibility import FunnelInputs, fresh_until
from app.market.services.exchange_clock import instant
from app.market.services.state import CANDLE_SOURCE, LIVE, Market, Received
from app.market.services.symbol_quality import next_funding
from app.market.services.symbol_registry import KnownContracts


@dataclass(frozen=True, slots=True)
class Aged:
    """Age of a value in seconds, with its freshness."""

    age_s: float | None
    status: DataStatus


@dataclass(frozen=True, slots=True)
class AgedBook:
    """Order book with the exchange time at which it was last true, its age and freshness."""

    book: Book
    at: datetime
    aged: Aged


@dataclass(frozen=True, slots=True)
class QuoteView:
    """Market values of one symbol; None is unknown."""

    entry: SymbolEntry
    last: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    mark: Decimal | None
    index: Decimal | None
    change_24h: Decimal | None
    turnover_24h: Decimal | None
    volume_24h: Decimal | None
    funding_rate: Decimal | None
    predicted_funding_rate: Decimal | None
    funding_interval_ms: int | None
    next_funding: datetime | None
    open_interest_lots: int | None
    open_interest: Decimal | None  # base coins
    spread_bp: float | None
    depth: float | None  # quote currency within 50 bp of mid, thinner side
    settled_funding: tuple[Funding, ...]
    ages: Mapping[Source, Aged]
    quoted_at: (
        datetime | None
    )  # exchange time of bid and ask, which are newer than the contract's statistics
    as_of: datetime | None  # time up to which all parts are known; each part has its own age
    status: DataStatus


def spread(bid: Decimal | None, ask: Decimal | None) -> float | None:
    """Returns the spread in basis points of mid; None for a missing, crossed or locked quote."""
    if bid is None or ask is None or not 0 < bid < ask:
        return None
    return float((ask - bid) / (ask + bid) * 20_000)


_QUORUM: Final = 0.5  # share of symbols that must have a bar before a panel ends with it


@dataclass(slots=True)
class PanelCache:
    """LatestUpdate panel of each interval; the same object while no closed candle changes."""

    _known: dict[Interval, tuple[tuple[CandleSeries | None, ...], Panel]] = field(
        default_factory=dict, init=False
    )

    def fork(self) -> "PanelCache":
        """Returns a cache with the same panels, for a scoring beside the running one."""
        other = PanelCache()
        other._known = dict(self._known)
        return other

    def get(
        self,
        series: Mapping[str, CandleSeries],
        symbols: tuple[str, ...],
        interval: Interval,
        closed_by_ms: int,
        bars: int,
    ) -> Panel:
        """Returns `Panel.from_series`, cached; unchanged series must be the same objects."""
        own = tuple(map(series.get, symbols))
        last_ms = closed_by_ms // interval.ms * interval.ms - interval.ms
        former, panel = self._known.get(interval, ((), None))
        if (
            panel is not None
            and panel.symbols == symbols
            and len(panel.opened_ms) == bars
            and int(panel.opened_ms[-1]) == last_ms
            and all(one is other for one, other in zip(own, former, strict=True))
        ):
            return panel
        panel = Panel.from_series(series, symbols, interval, closed_by_ms, bars)
        self._known[interval] = own, panel
        return panel


BuildPanel = Callable[
    [Mapping[str, CandleSeries], tuple[str, ...], Interval, int, int], Panel
]  # as Panel.from_series


def agreed_panel(
    series: Mapping[str, CandleSeries],
    symbols: tuple[str, ...] | None,
    interval: Interval,
    closed_ms: int,
    bars: int,
    build: BuildPanel = Panel.from_series,
) -> Panel:
    """Returns the last `bars` bars closed by `closed_ms` of `symbols`, None meaning all by name.

    The panel ends with the newest bar that at least half of the symbols have.
    """
    names = tuple(sorted(series)) if symbols is None else symbols
    last = [int(series[name].opened_ms[-1]) for name in names if len(series.get(name, ()))]
    if last:
        agreed_ms = int(np.quantile(last, _QUORUM, method="lower")) + interval.ms
        closed_ms = min(closed_ms, agreed_ms)
    return build(series, names, interval, closed_ms, bars)


def as_float(value: Decimal | None) -> float:
    """Returns NaN for None."""
    return np.nan if value is None else float(value)


def age_column(ages: Sequence[Mapping[Source, float | None]], source: Source) -> Floats:
    """Returns (N,) ages in seconds of one source; NaN where there never was a value."""
    known = (one[source] for one in ages)
    return np.array([np.nan if age is None else age for age in known], dtype=np.float64)


DAILY_BARS: Final = 250  # full sample of the confidence
HOURLY_BARS: Final = 400
BARS: Final[Mapping[Interval, int]] = {Interval.DAY: DAILY_BARS, Interval.HOUR: HOURLY_BARS}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MarketMoment:
    """Market at one instant; every method is a pure function of it."""

    market: Market
    known: KnownContracts
    configuration: Configuration
    sectors: SectorTable
    mono: float
    server_ms: int
    memory: ViewCache = field(default_factory=ViewCache)  # shared by all moments of one market
    panels: PanelCache = field(default_factory=PanelCache)  # shared likewise
    clock_uncertainty_s: float = 0.0  # largest error of `server_ms`
    is_streamed: bool = False  # configured feed mode, which age limits follow; not the present one

    def under(self, configuration: Configuration) -> "MarketMoment":
        """Returns the same market as other settings judge it, with caches of its own."""
        return replace(
            self, configuration=configuration, memory=ViewCache(), panels=self.panels.fork()
        )

    @property
    def limits(self) -> EligibilityLimits:
        return EligibilityLimits(self.configuration.eligibility, self.age_limit_s(Source.TICKERS))

    def age_limit_s(self, source: Source) -> float:
        """Returns the age limit of an input in the configured feed mode."""
        return self.configuration.age_limit_s(source, streaming=self.is_streamed)

    @property
    def quote_span_s(self) -> float:
        """Largest time span in seconds between the quotes of one scoring run."""
        return self.configuration.quote_span_s(streaming=self.is_streamed)

    @property
    def _funnel_inputs(self) -> FunnelInputs:
        return FunnelInputs(
            self.market,
            self.known,
            self.configuration,
            self.sectors,
            self.mono,
            self.limits,
            self.memory,
        )

    def candidate(self, contract: Contract, symbol: str) -> EligibilityCandidate:
        """Returns the inputs of the eligibility rules for one contract."""
        return self._funnel_inputs.candidate(contract, symbol)

    def funnel(self) -> Funnel:
        return self._funnel_inputs.funnel()

    def eligibility(self, entry: SymbolEntry) -> tuple[RuleCheck, ...]:
        return check_rules(self.candidate(entry.contract, entry.symbol), self.limits)

    def status(self) -> DataStatus:
        """Returns the freshness of the listings, on which all other market data depends."""
        return self.status_until()[0]

    def status_until(self) -> tuple[DataStatus, float]:
        """Returns the status, and the last monotonic second at which it holds unchanged."""
        answers = ((self.market.answers.get(one), self.age_limit_s(one)) for one in LIVE)
        ends = (one.mono + limit_s for one, limit_s in answers if one is not None)
        until = min((end for end in ends if self.mono <= end), default=np.inf)
        return worst(map(self._freshness, LIVE)), until

    def unknown(self) -> tuple[Source, ...]:
        """Returns the sources that are too old to score by, or missing."""
        stale = [source for source in LIVE if self._freshness(source) is not DataStatus.FRESH]
        return (*stale, *(() if self.market.daily else (Source.DAILY_CANDLES,)))

    def as_of(self) -> datetime | None:
        """Returns the exchange time up to which all listings are known; None before all answer."""
        known_ms = self.market.known_until_ms()
        return None if known_ms is None else instant(known_ms)

    def age_s(self, source: Source) -> float | None:
        """Returns the seconds since the source last answered."""
        return self._age(self.market.answers.get(source))

    def _freshness(self, source: Source) -> DataStatus:
        return freshness(self.age_s(source), self.age_limit_s(source))

    def ages(self, entry: SymbolEntry) -> dict[Source, Aged]:
        """Returns age and freshness of each input of one symbol."""
        code = entry.contract.code
        aged = {
            source: Aged(age, freshness(age, self.age_limit_s(source)))
            for source, age in self._ages_of(code).items()
        }
        if code in self.market.diverged:
            quote = aged[Source.TICKERS]
            aged[Source.TICKERS] = Aged(quote.age_s, worst((quote.status, DataStatus.STALE)))
        return aged

    def _live_limits_s(self) -> tuple[float, float]:
        return self.age_limit_s(Source.CONTRACTS), self.age_limit_s(Source.TICKERS)

    def is_fresh(self, entry: SymbolEntry) -> bool:
        """True if contract and ticker are within their age limits and not contradicted."""
        return self._is_fresh(entry.contract.code, self._live_limits_s())

    def _is_fresh(self, code: str, limits_s: tuple[float, float]) -> bool:
        """True if contract and ticker are within `limits_s`, those of LIVE.

        Computing the limits for each symbol takes longer than the rest.
        """
        if code in self.market.diverged:
            return False
        stats, ticker = self.market.stats.get(code), self.market.tickers.get(code)
        if stats is None or ticker is None:
            return False
        stats_limit_s, ticker_limit_s = limits_s
        return self.mono - stats.mono <= stats_limit_s and self.mono - ticker.mono <= ticker_limit_s

    def book(self, entry: SymbolEntry) -> Book | None:
        """Returns the book of a symbol while it is within its age limit."""
        current = self.market.books.get(entry.contract.code)
        return (
            current.value
            if current is not None and self._is_fresh_value(Source.BOOKS, current)
            else None
        )

    def books(self, entry: SymbolEntry) -> tuple[AgedBook, ...]:
        """Returns the known books of a symbol: the displayed one, then a polled deeper one."""
        shown = self.market.books.get(entry.contract.code)
        deep = self.market.deep_books.get(entry.contract.code)
        found = []
        for received, limit_s in (
            (shown, self.age_limit_s(Source.BOOKS)),
            (deep, self._scoring_limit_s(Source.BOOKS)),
        ):
            if received is not None:
                age = self._age(received)
                found.append(
                    AgedBook(received.value, received.at, Aged(age, freshness(age, limit_s)))
                )
        return tuple(found)

    def _is_fresh_value(self, source: Source, received: Received[object] | None) -> bool:
        return freshness(self._age(received), self.age_limit_s(source)) is DataStatus.FRESH

    def stale_symbols(self) -> int:
        """Returns the number of open contracts with stale or missing contract or ticker data."""
        return self.stale_symbols_until()[0]

    def stale_symbols_until(self) -> tuple[int, float]:
        """Returns their number, and the last monotonic second at which it holds unchanged."""
        limits_s, market = self._live_limits_s(), self.market
        # Counted each second: whole sets take a tenth of a look at each symbol.
        fresh_stats, fresh_tickers = (
            {code for code, one in received.items() if self.mono - one.mono <= most_s}
            for received, most_s in zip((market.stats, market.tickers), limits_s, strict=True)
        )
        fresh = (fresh_stats & fresh_tickers) - market.diverged
        stale = sum(
            entry.contract.status is ContractStatus.OPEN and entry.contract.code not in fresh
            for entry in self.known.index.entries
        )
        both = zip((self.market.stats, self.market.tickers), limits_s, strict=True)
        return stale, min(fresh_until(received, most_s, self.mono) for received, most_s in both)

    def quote(self, entry: SymbolEntry) -> QuoteView:
        code, contract = entry.contract.code, entry.contract
        ages = self.ages(entry)
        received = self.market.stats.get(code), self.market.tickers.get(code)
        stats = None if received[0] is None else received[0].value
        ticker = None if received[1] is None else received[1].value
        book = self.market.books.get(code)
        settled = self.market.funding.get(code)
        times = [one.at for one in received if one is not None]
        bid, ask = (None, None) if ticker is None else (ticker.bid, ticker.ask)
        shown = None if book is None else depth(book.value, float(contract.multiplier), 50.0)
        return QuoteView(
            entry=entry,
            last=None if ticker is None else ticker.last,
            bid=bid,
            ask=ask,
            mark=None if stats is None else stats.mark_price,
            index=None if stats is None else stats.index_price,
            change_24h=None if stats is None else stats.change_24h,
            turnover_24h=None if stats is None else stats.turnover_24h,
            volume_24h=None if stats is None else stats.volume_24h,
            funding_rate=None if stats is None else stats.funding_rate,
            predicted_funding_rate=None if stats is None else stats.predicted_funding_rate,
            funding_interval_ms=contract.funding_interval_ms,
            next_funding=next_funding(stats, contract, self.server_ms),
            open_interest_lots=None if stats is None else stats.open_interest_lots,
            open_interest=self.open_interest(contract),
            spread_bp=spread(bid, ask),
            depth=None if shown is None or np.isnan(shown) or contract.is_inverse else shown,
            settled_funding=() if settled is None else settled.value,
            ages=ages,
            quoted_at=None if received[1] is None else received[1].at,
            as_of=min(times, default=None),
            status=worst(ages[source].status for source in LIVE),
        )

    def open_interest(self, contract: Contract) -> Decimal | None:
        """Returns the current open interest in base coins; None without it or without a price."""
        stats = self.market.stats.get(contract.code)
        if stats is None or stats.value.open_interest_lots is None:
            return None
        price = stats.value.mark_price or stats.value.last_price
        if price is None or price <= 0:
            return None
        return base_quantity(contract, stats.value.open_interest_lots, price)

    def panel(
        self,
        interval: Interval,
        symbols: tuple[str, ...] | None = None,
        until_ms: int | None = None,
        build: BuildPanel = Panel.from_series,
    ) -> Panel:
        """Returns bars closed by now, or by `until_ms`, of `symbols`, or of all that have any."""
        current = self.market.series(interval)
        series = {
            entry.symbol: current[entry.contract.code].value
            for entry in self.known.index.entries
            if entry.contract.code in current
        }
        closed = closed_by_ms(self.server_ms)
        if until_ms is not None:
            closed = min(closed, until_ms)
        return agreed_panel(series, symbols, interval, closed, BARS[interval], build)

    def scoring_inputs(self) -> ScoringInputs:
        """Returns the inputs of one scoring run, for the symbols that pass the funnel."""
        passed = self.funnel()
        names = passed.eligible
        entries = [entry for entry in map(self.known.index.find, names) if entry is not None]
        codes = tuple(entry.contract.code for entry in entries)
        known_ms = self.market.known_until_ms()
        as_of_ms = self.server_ms if known_ms is None else known_ms
        books = [self.market.deep_book(code, as_of_ms) for code in codes]
        ages = [
            {**self._ages_of(code), Source.BOOKS: self._age(one)}
            for code, one in zip(codes, books, strict=True)
        ]
        tickers = [self.market.tickers.get(code) for code in codes]
        funding = [self.market.funding.get(code) for code in codes]
        daily, hourly = (
            self.panel(interval, names, as_of_ms, self.panels.get)
            for interval in (Interval.DAY, Interval.HOUR)
        )
        log = self.market.open_interest.before(as_of_ms)
        coins_before = log.columns(codes)
        for column, entry in enumerate(entries):
            # Coins of another unit, or lots of another size, are not compared with present ones.
            for change in self.known.record(entry).lot_changes[-1:]:
                since_ms = change.until.timestamp() * 1000.0
                coins_before[log.times_ms < since_ms, column] = np.nan
        now_coins = np.array([[as_float(self.open_interest(one.contract)) for one in entries]])
        return ScoringInputs(
            symbols=names,
            as_of_ms=as_of_ms,
            daily=daily,
            hourly=hourly,
            bid=np.array([as_float(one.value.bid if one else None) for one in tickers]),
            ask=np.array([as_float(one.value.ask if one else None) for one in tickers]),
            multiplier=np.array([float(one.contract.multiplier) for one in entries]),
            books=tuple(None if one is None else one.value for one in books),
            funding=tuple(() if one is None else one.value for one in funding),
            open_interest_ms=np.append(log.times_ms, np.int64(as_of_ms)),
            open_interest=np.vstack([coins_before, now_coins.reshape(1, len(codes))]),
            ages_s={source: age_column(ages, source) for source in Source},
            half_lives_s={source: self._scoring_limit_s(source) for source in Source},
            excluded=passed.excluded,
            unread=sum(map(self._is_unread, passed.excluded.items())),
            flow=TradeFlow.of([self._trades(one, as_of_ms) for one in entries], as_of_ms),
        )

    def _trades(self, entry: SymbolEntry, as_of_ms: int) -> TradeWindow | None:
        """Returns the streamed trades of a symbol; None across a change of the lot size."""
        window = self.market.flows.get(entry.contract.code)
        changes = self.known.record(entry).lot_changes
        hour_ms = as_of_ms - Interval.HOUR.ms - MINUTE_MS
        is_split = bool(changes) and changes[-1].until.timestamp() * 1000 > hour_ms
        return None if is_split else window

    def _scoring_limit_s(self, source: Source) -> float:
        """Returns `age_limit_s`; for books the limit of the polled ones, which alone are scored."""
        if source is Source.BOOKS:
            return self.configuration.intervals.order_book_max_age_s
        return self.age_limit_s(source)

    def _is_unread(self, excluded: tuple[str, str]) -> bool:
        """True if a symbol is excluded only because an input of the funnel is not known yet.

        That is its 24 h turnover, without which no candles are fetched, or its daily candles.
        """
        symbol, rule = excluded
        entry = self.known.index.find(symbol)
        if rule == TURNOVER_24H and entry is not None:
            stats = self.market.stats.get(entry.contract.code)
            return stats is None or stats.value.turnover_24h is None
        if rule != DAILY_BARS_RULE or entry is None or entry.contract.code in self.market.daily:
            return False
        listed_ms = entry.contract.listed_ms  # a listing since yesterday has no candle
        return listed_ms is None or listed_ms < self.server_ms - 2 * Interval.DAY.ms

    def _ages_of(self, code: str) -> dict[Source, float | None]:
        """Returns the seconds since each input of a contract was last known to be true.

        For candles: since the newest one closed, whenever it arrived.
        """
        market = self.market
        ages: dict[Source, float | None] = {
            Source.CONTRACTS: self._age(market.stats.get(code)),
            Source.TICKERS: self._age(market.tickers.get(code)),
            Source.BOOKS: self._age(market.books.get(code)),
            Source.FUNDING: self._age(market.funding.get(code)),
        }
        for interval, source in CANDLE_SOURCE.items():
            current = market.series(interval).get(code)
            closed = None
            if current is not None and len(current.value):
                closed = int(current.value.opened_ms[-1]) + interval.ms
            ages[source] = None if closed is None else max(0.0, (self.server_ms - closed) / 1000)
        return ages

    def _age(self, received: Received[object] | None) -> float | None:
        return None if received is None else max(0.0, self.mono - received.mono)


COUNT_S: Final = 15.0  # cache time of the number of eligible symbols, which is for display only
_COUNT: Final = "eligible"


def history_candidates(moment: MarketMoment) -> tuple[SymbolEntry, ...]:
    """Returns symbols that pass the rules on listing and turnover, the most traded first."""
    aged = (
        (candidate.turnover_24h or 0, entry)
        for entry in moment.known.index.entries
        for candidate in (moment.candidate(entry.contract, entry.symbol),)
        if is_worth_history(candidate, moment.limits)
    )
    ranked = sorted(aged, key=lambda pair: (-pair[0], pair[1].symbol))
    return tuple(entry for _, entry in ranked)


def eligible(moment: MarketMoment) -> tuple[SymbolEntry, ...]:
    """Returns symbols that pass the whole funnel, the most traded first."""
    passed = set(moment.funnel().eligible)
    return tuple(entry for entry in history_candidates(moment) if entry.symbol in passed)


def count(moment: MarketMoment) -> int:
    """Returns the number of eligible symbols, up to COUNT_S old."""

    def counted() -> tuple[int, float]:
        return len(moment.funnel().eligible), moment.mono + COUNT_S

    return moment.memory.get_until(_COUNT, _depends_on(moment), moment.mono, counted)


async def count_in_thread(moment: MarketMoment) -> None:
    """Computes the number for `count`, in a thread unless it is cached."""
    if not moment.memory.has(_COUNT, _depends_on(moment), moment.mono):
        await asyncio.to_thread(count, moment)


def _depends_on(moment: MarketMoment) -> tuple[object, ...]:
    return (moment.known, moment.configuration)
