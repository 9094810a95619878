"""Live market state as immutable values: what was received, when, and our own open interest log."""

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
from app.market.services.exchange_clock import ServerClock, instant

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

CANDLE_SOURCE: Final[Mapping[Interval, Source]] = MappingProxyType(
    {Interval.DAY: Source.DAILY_CANDLES, Interval.HOUR: Source.HOURLY_CANDLES}
)


LIVE: Final = (Source.CONTRACTS, Source.TICKERS)  # the listings that everything else hangs on
SHOWN_LEVELS: Final = 20  # a side, as many as are taken of the stream


def _none_yet() -> Mapping[Any, Any]:
    return MappingProxyType({})


class Received(msgspec.Struct, Generic[T_co], frozen=True, gc=False):
    """A value with the exchange time of its arrival (ms) and our monotonic time of it."""

    value: T_co
    at_ms: int
    mono: float

    @property
    def at(self) -> datetime:
        return instant(self.at_ms)

    def saying(self, value: T) -> "Received[T]":
        """Another value, as old as this one."""
        return Received(value, self.at_ms, self.mono)


@dataclass(frozen=True, slots=True)
class FillProgress:
    """How far the first fill has come."""

    stage: str
    done: int
    total: int


NOT_STARTED: Final = FillProgress("not_started", 0, 0)


@dataclass(slots=True)
class Filling:
    """One fill at a time; who waits for its turn hears how far the other one is."""

    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _watched_by: list[Callable[[str, int, int], None]] = field(default_factory=list)

    @asynccontextmanager
    async def turn(self, watch: Callable[[str, int, int], None]) -> AsyncIterator[None]:
        """Ours once nobody else has it; `watch` is told of all progress from here to the end."""
        self._watched_by.append(watch)
        try:
            async with self._lock:
                yield
        finally:
            self._watched_by.remove(watch)

    def tell(self, stage: str, done: int, total: int) -> None:
        for watch in tuple(self._watched_by):
            watch(stage, done, total)


@dataclass(frozen=True, slots=True)
class DailyFacts:
    """What the funnel asks of daily candles, worked out once per change."""

    bars: int
    median_turnover: Decimal | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OpenInterestLog:
    """Our own hourly snapshots in base coins: (S,) instants, (S, K) values, NaN unknown."""

    codes: tuple[str, ...] = ()
    times_ms: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    values: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def with_row(self, taken_ms: int, row: Mapping[str, float], keep_ms: int) -> "OpenInterestLog":
        """One instant more; what is older than `keep_ms` before it is dropped."""
        codes = (*self.codes, *(code for code in row if code not in set(self.codes)))
        wider = np.full((len(self.times_ms), len(codes)), np.nan)
        wider[:, : len(self.codes)] = self.values
        last = np.array([[row.get(code, np.nan) for code in codes]])
        kept = (self.times_ms > taken_ms - keep_ms) & (self.times_ms < taken_ms)
        return OpenInterestLog(
            codes,
            np.append(self.times_ms[kept], np.int64(taken_ms)),
            np.vstack([wider[kept], last]),
        )

    def without(self, gone: Collection[str]) -> "OpenInterestLog":
        """As if nothing had been taken of these codes."""
        kept = [at for at, code in enumerate(self.codes) if code not in gone]
        codes = tuple(self.codes[at] for at in kept)
        return OpenInterestLog(codes, self.times_ms, self.values[:, kept])

    def before(self, instant_ms: int) -> "OpenInterestLog":
        """Only what was taken before an instant."""
        seen = self.times_ms < instant_ms
        return OpenInterestLog(self.codes, self.times_ms[seen], self.values[seen])

    def columns(self, codes: tuple[str, ...]) -> Floats:
        """(S, N) for `codes` in their order."""
        column_of = {code: at for at, code in enumerate(self.codes)}
        out = np.full((len(self.times_ms), len(codes)), np.nan)
        for at, code in enumerate(codes):
            column = column_of.get(code)
            if column is not None:
                out[:, at] = self.values[:, column]
        return out


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Market:
    """Everything known of the market at one moment, by contract code; replaced as a whole.

    It has no repr: a log line or a traceback that shows it would print a million numbers.
    """

    stats: Mapping[str, Received[ContractStats]] = field(default_factory=_none_yet)
    tickers: Mapping[str, Received[Ticker]] = field(default_factory=_none_yet)
    books: Mapping[str, Received[Book]] = field(default_factory=_none_yet)  # told or asked for
    # Answers of 100 levels, which are scored, and the ones before them: the newest that was
    # stamped by the time up to which the market was known when the newer one came.
    deep_books: Mapping[str, Received[Book]] = field(default_factory=_none_yet)
    former_deep_books: Mapping[str, Received[Book]] = field(default_factory=_none_yet)
    funding: Mapping[str, Received[tuple[Funding, ...]]] = field(default_factory=_none_yet)
    daily: Mapping[str, Received[CandleSeries]] = field(default_factory=_none_yet)
    hourly: Mapping[str, Received[CandleSeries]] = field(default_factory=_none_yet)
    daily_facts: Mapping[str, DailyFacts] = field(default_factory=_none_yet)
    open_interest: OpenInterestLog = field(default_factory=OpenInterestLog)
    answers: Mapping[Source, Received[None]] = field(default_factory=_none_yet)
    quality: Mapping[str, PriceState] = field(default_factory=_none_yet)
    diverged: frozenset[str] = frozenset()  # told and answered quotes contradict each other
    is_streaming: bool = False  # its quotes are told, not asked for: other ages are too old

    def known_until_ms(self) -> int | None:
        """Exchange time up to which all listings are known; None until all have answered."""
        answers = [self.answers.get(source) for source in LIVE]
        times = [one.at_ms for one in answers if one is not None]
        return min(times) if len(times) == len(LIVE) else None

    def with_deep_book(self, book: Received[Book]) -> "Market":
        """The same with an answer of 100 levels; its best levels are the book that is shown."""
        code, until_ms = book.value.code, self.known_until_ms()
        former, older = self.deep_books.get(code), self.former_deep_books
        if former is not None and until_ms is not None and former.value.stamped_ms <= until_ms:
            older = joined(older, {code: former})
        return replace(
            self,
            books=joined(self.books, {code: book.saying(book.value.top(SHOWN_LEVELS))}),
            deep_books=joined(self.deep_books, {code: book}),
            former_deep_books=older,
        )

    def deep_book(self, code: str, until_ms: int) -> Received[Book] | None:
        """The newest answer of 100 levels that is held and was stamped by `until_ms`."""
        held = (self.deep_books.get(code), self.former_deep_books.get(code))
        return next((one for one in held if one and one.value.stamped_ms <= until_ms), None)

    def series(self, interval: Interval) -> Mapping[str, Received[CandleSeries]]:
        return self.daily if interval is Interval.DAY else self.hourly

    def without(self, gone: Collection[str]) -> "Market":
        """As if nothing had been received of these codes."""

        def others(held: Mapping[str, T]) -> Mapping[str, T]:
            return MappingProxyType({code: one for code, one in held.items() if code not in gone})

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
        )

    def with_candles(
        self, interval: Interval, fresh: Mapping[str, Received[CandleSeries]]
    ) -> "Market":
        """The same with the given series in place of the former ones."""
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
    """A new mapping with the newer word winning; nobody who reads the old one notices."""
    # Unpacking a proxy asks it for each key: a copy takes a tenth of that.
    merged = old.copy() if isinstance(old, MappingProxyType) else dict(old)
    merged.update(new)
    return MappingProxyType(merged)


class Stamping(Protocol):
    """As `LiveMarket.stamped`."""

    def __call__(self, value: T, stamped_ms: int, arrived: float) -> Received[T]: ...


@dataclass(slots=True)
class LiveMarket:
    """The one mutable cell: the present `Market`, and the clocks that stamp what comes in."""

    server_clock: ServerClock
    monotonic: Monotonic
    market: Market = field(default_factory=Market)

    def received(self, value: T) -> Received[T]:
        """`value` as it arrives now."""
        return Received(value, self.server_clock.now_ms(), self.monotonic())

    def stamped(self, value: T, stamped_ms: int, arrived: float) -> Received[T]:
        """`value` that the exchange stamped so and that came at that monotonic time.

        Its age counts from its stamp; where the clocks differ it is never younger than its coming.
        """
        return self.stamps()(value, stamped_ms, arrived)

    def stamps(self) -> "Stamping":
        """`stamped` for many values of one moment: both clocks are looked at once."""
        now, now_ms = self.monotonic(), self.server_clock.now_ms()

        def stamped(value: T, stamped_ms: int, arrived: float) -> Received[T]:
            age_s = max(now - arrived, (now_ms - stamped_ms) / 1000)
            return Received(value, stamped_ms, now - age_s)

        return stamped

    def recalled(self, value: T, true_ms: int) -> Received[T]:
        """A stored `value` that was last known to be true at `true_ms` of exchange time."""
        age_s = max(0.0, (self.server_clock.now_ms() - true_ms) / 1000)
        return Received(value, true_ms, self.monotonic() - age_s)

    def publish(self, market: Market, *answered: Source) -> None:
        """Put `market` in place of the present one; the sources named have just answered.

        Made from the present market without waiting in between, or a change would be lost.
        """
        answers = {source: self.received(None) for source in answered}
        self.market = replace(market, answers=joined(market.answers, answers))

    def forget(self, gone: Collection[str]) -> None:
        """Another contract has these codes now: what was heard of the former ones is not of it."""
        if gone:
            self.market = self.market.without(gone)

    def slept(self, missed_s: float) -> None:
        """So much time has passed that our monotonic clock knows nothing of: all is older by it."""

        def older(held: Mapping[K, Received[T]]) -> Mapping[K, Received[T]]:
            return MappingProxyType(
                {
                    name: Received(one.value, one.at_ms, one.mono - missed_s)
                    for name, one in held.items()
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
