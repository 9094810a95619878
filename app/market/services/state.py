"""Live market state as immutable values: received data with times, open interest history."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
import numpy as np

from app.configuration.domain.sections import Source
from app.foundation.ports import Monotonic
from app.market.domain.data_quality import median_turnover
from app.market.domain.eligibility import MEDIAN_DAYS
from app.market.domain.models import (
    Book,
    CandleSeries,
    ContractStats,
    Floats,
    Funding,
    Interval,
    Ints,
    Ticker,
)
from app.market.domain.price_quarantine import PriceState
from app.market.domain.trade_flow import TradeWindow
from app.market.services.exchange_clock import ServerClock, instant

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

CANDLE_SOURCE: Final[Mapping[Interval, Source]] = MappingProxyType(
    {Interval.DAY: Source.DAILY_CANDLES, Interval.HOUR: Source.HOURLY_CANDLES}
)


LIVE: Final = (Source.CONTRACTS, Source.TICKERS)  # the listings that all else depends on
SHOWN_LEVELS: Final = 20  # levels a side, as many as the stream provides


def _empty_mapping() -> Mapping[Any, Any]:
    return MappingProxyType({})


class Received(msgspec.Struct, Generic[T_co], frozen=True, gc=False):
    """Value with the exchange time (ms) and our monotonic time at which it was last true."""

    value: T_co
    at_ms: int
    mono: float

    @property
    def at(self) -> datetime:
        return instant(self.at_ms)

    def with_value(self, value: T) -> "Received[T]":
        """Returns another value with the same times."""
        return Received(value, self.at_ms, self.mono)


@dataclass(frozen=True, slots=True)
class FillProgress:
    """Progress of the first fill."""

    stage: str
    done: int
    total: int


NOT_STARTED: Final = FillProgress("not_started", 0, 0)


@dataclass(slots=True)
class FillQueue:
    """Admits one fill at a time; waiting callers receive the progress of the running one."""

    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _listeners: list[Callable[[str, int, int], None]] = field(default_factory=list)

    @asynccontextmanager
    async def wait_turn(self, watch: Callable[[str, int, int], None]) -> AsyncIterator[None]:
        """Waits for the turn; `watch` receives all progress from now to the end of the turn."""
        self._listeners.append(watch)
        try:
            async with self._lock:
                yield
        finally:
            self._listeners.remove(watch)

    def report(self, stage: str, done: int, total: int) -> None:
        for watch in tuple(self._listeners):
            watch(stage, done, total)


@dataclass(frozen=True, slots=True)
class DailyFacts:
    """Inputs of the funnel from daily candles, computed once per change."""

    bars: int
    median_turnover: Decimal | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpenInterestLog:
    """Hourly snapshots of open interest in base coins: (S,) times, (S, K) values, NaN unknown."""

    codes: tuple[str, ...] = ()
    times_ms: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    values: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def with_row(self, taken_ms: int, row: Mapping[str, float], keep_ms: int) -> "OpenInterestLog":
        """Adds a snapshot and drops those older than `keep_ms` before it."""
        codes = (*self.codes, *(code for code in row if code not in set(self.codes)))
        wider = np.full((len(self.times_ms), len(codes)), np.nan)
        wider[:, : len(self.codes)] = self.values
        last = np.array([[row.get(code, np.nan) for code in codes]])
        recent = (self.times_ms > taken_ms - keep_ms) & (self.times_ms < taken_ms)
        return OpenInterestLog(
            codes,
            np.append(self.times_ms[recent], np.int64(taken_ms)),
            np.vstack([wider[recent], last]),
        )

    def without(self, gone: Collection[str]) -> "OpenInterestLog":
        """Removes the columns of these codes."""
        columns = [at for at, code in enumerate(self.codes) if code not in gone]
        codes = tuple(self.codes[at] for at in columns)
        return OpenInterestLog(codes, self.times_ms, self.values[:, columns])

    def before(self, instant_ms: int) -> "OpenInterestLog":
        """Returns only the snapshots before an instant."""
        earlier = self.times_ms < instant_ms
        return OpenInterestLog(self.codes, self.times_ms[earlier], self.values[earlier])

    def columns(self, codes: tuple[str, ...]) -> Floats:
        """Returns (S, N) values for `codes` in their order."""
        column_of = {code: at for at, code in enumerate(self.codes)}
        out = np.full((len(self.times_ms), len(codes)), np.nan)
        for at, code in enumerate(codes):
            column = column_of.get(code)
            if column is not None:
                out[:, at] = self.values[:, column]
        return out


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Market:
    """KnownContracts market data at one moment, by contract code; replaced as a whole.

    Without a repr, because one in a log line or traceback would print a million numbers.
    """

    stats: Mapping[str, Received[ContractStats]] = field(default_factory=_empty_mapping)
    tickers: Mapping[str, Received[Ticker]] = field(default_factory=_empty_mapping)
    books: Mapping[str, Received[Book]] = field(
        default_factory=_empty_mapping
    )  # streamed or polled
    # Polled books of 100 levels, which are scored, and their predecessors: the newest one stamped
    # by the market's known time at the arrival of its successor.
    deep_books: Mapping[str, Received[Book]] = field(default_factory=_empty_mapping)
    former_deep_books: Mapping[str, Received[Book]] = field(default_factory=_empty_mapping)
    funding: Mapping[str, Received[tuple[Funding, ...]]] = field(default_factory=_empty_mapping)
    daily: Mapping[str, Received[CandleSeries]] = field(default_factory=_empty_mapping)
    hourly: Mapping[str, Received[CandleSeries]] = field(default_factory=_empty_mapping)
    daily_facts: Mapping[str, DailyFacts] = field(default_factory=_empty_mapping)
    open_interest: OpenInterestLog = field(default_factory=OpenInterestLog)
    answers: Mapping[Source, Received[None]] = field(default_factory=_empty_mapping)
    quality: Mapping[str, PriceState] = field(default_factory=_empty_mapping)
    diverged: frozenset[str] = frozenset()  # streamed and polled quotes contradict each other
    flows: Mapping[str, TradeWindow] = field(default_factory=_empty_mapping)  # streamed trades
    is_streaming: bool = False  # quotes are streamed, not polled, with other age limits

    def known_until_ms(self) -> int | None:
        """Returns the exchange time up to which all listings are known; None before all answer."""
        answers = [self.answers.get(source) for source in LIVE]
        times = [one.at_ms for one in answers if one is not None]
        return min(times) if len(times) == len(LIVE) else None

    def with_deep_book(self, book: Received[Book]) -> "Market":
        """Adds a polled book of 100 levels; its best levels become the displayed book."""
        code, until_ms = book.value.code, self.known_until_ms()
        former, older = self.deep_books.get(code), self.former_deep_books
        if former is not None and until_ms is not None and former.value.stamped_ms <= until_ms:
            older = joined(older, {code: former})
        return replace(
            self,
            books=joined(self.books, {code: book.with_value(book.value.top(SHOWN_LEVELS))}),
            deep_books=joined(self.deep_books, {code: book.with_value(book.value.packed())}),
            former_deep_books=older,
        )

    def deep_book(self, code: str, until_ms: int) -> Received[Book] | None:
        """Returns the newest stored polled book that was stamped by `until_ms`."""
        stored = (self.deep_books.get(code), self.former_deep_books.get(code))
        return next((one for one in stored if one and one.value.stamped_ms <= until_ms), None)

    def series(self, interval: Interval) -> Mapping[str, Received[CandleSeries]]:
        """Returns the series of a stored interval. Raises KeyError for any other."""
        return {Interval.DAY: self.daily, Interval.HOUR: self.hourly}[interval]

    def without(self, gone: Collection[str]) -> "Market":
        """Removes all data of these codes."""

        def others(values: Mapping[str, T]) -> Mapping[str, T]:
            return MappingProxyType({code: one for code, one in values.items() if code not in gone})

        return replace(
            self,
            stats=others(self.stats),
            tickers=others(self.tickers),
            books=others(self.books),
            deep_books=others(self.deep_books),
            former_deep_books=others(self.former_deep_books),
            funding=others(self.funding),
            daily=others(self.daily),
            hourly=others(self.hourly),
            daily_facts=others(self.daily_facts),
            open_interest=self.open_interest.without(gone),
            quality=others(self.quality),
            diverged=self.diverged.difference(gone),
            flows=others(self.flows),
        )

    def with_candles(
        self, interval: Interval, fresh: Mapping[str, Received[CandleSeries]]
    ) -> "Market":
        """Replaces the series of some contracts."""
        if interval is Interval.HOUR:
            return replace(self, hourly=joined(self.hourly, fresh))
        facts = {
            code: DailyFacts(len(one.value), median_turnover(one.value, MEDIAN_DAYS))
            for code, one in fresh.items()
        }
        return replace(
            self,
            daily=joined(self.daily, fresh),
            daily_facts=joined(self.daily_facts, facts),
        )


K = TypeVar("K")


def joined(old: Mapping[K, T], new: Mapping[K, T]) -> Mapping[K, T]:
    """Returns a new mapping in which `new` wins; readers of the old one see no change."""
    # Unpacking a proxy looks up each key: a copy takes a tenth of that.
    merged = old.copy() if isinstance(old, MappingProxyType) else dict(old)
    merged.update(new)
    return MappingProxyType(merged)


class Stamping(Protocol):
    """Signature of `LiveMarket.stamped`."""

    def __call__(self, value: T, stamped_ms: int, arrived: float) -> Received[T]: ...


@dataclass(slots=True)
class LiveMarket:
    """The one mutable cell: the present `Market`, and the clocks that stamp received data."""

    server_clock: ServerClock
    monotonic: Monotonic
    market: Market = field(default_factory=Market)

    def received(self, value: T) -> Received[T]:
        """Stamps a value that arrives now."""
        return Received(value, self.server_clock.now_ms(), self.monotonic())

    def stamped(self, value: T, stamped_ms: int, arrived: float) -> Received[T]:
        """Stamps a value with its exchange time and our monotonic time of arrival.

        Its age counts from the exchange time; where the clocks differ, it is at least the time
        since the arrival.
        """
        return self.stamps()(value, stamped_ms, arrived)

    def stamps(self) -> "Stamping":
        """Returns `stamped` for many values of one moment; both clocks are read once."""
        now, now_ms = self.monotonic(), self.server_clock.now_ms()

        def stamped(value: T, stamped_ms: int, arrived: float) -> Received[T]:
            age_s = max(now - arrived, (now_ms - stamped_ms) / 1000)
            return Received(value, stamped_ms, now - age_s)

        return stamped

    def restored(self, value: T, true_ms: int) -> Received[T]:
        """Stamps a stored value that was last known to be true at `true_ms` of exchange time."""
        age_s = max(0.0, (self.server_clock.now_ms() - true_ms) / 1000)
        return Received(value, true_ms, self.monotonic() - age_s)

    def publish(self, market: Market, *answered: Source) -> None:
        """Replaces the present market; `answered` names the sources that have just answered.

        Derive `market` from the present one without awaiting in between, or a change is lost.
        """
        answers = {source: self.received(None) for source in answered}
        self.market = replace(market, answers=joined(market.answers, answers))

    def forget(self, gone: Collection[str]) -> None:
        """Removes data of codes that now belong to another contract."""
        if gone:
            self.market = self.market.without(gone)

    def age_by(self, missed_s: float) -> None:
        """Ages all data by a time that our monotonic clock did not measure."""

        def older(values: Mapping[K, Received[T]]) -> Mapping[K, Received[T]]:
            return MappingProxyType(
                {
                    name: Received(one.value, one.at_ms, one.mono - missed_s)
                    for name, one in values.items()
                }
            )

        market = self.market
        self.market = replace(
            market,
            stats=older(market.stats),
            tickers=older(market.tickers),
            books=older(market.books),
            deep_books=older(market.deep_books),
            former_deep_books=older(market.former_deep_books),
            funding=older(market.funding),
            answers=older(market.answers),
        )
