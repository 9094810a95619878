"""History of one symbol: stored values, and others fetched on request within a budget."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import dropwhile
from typing import Any, Final, Generic, TypeVar
from weakref import WeakValueDictionary

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataStatus
from app.foundation.errors import (
    Code,
    ExchangeTimeoutError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.ports import Monotonic
from app.market.domain.data_quality import (
    EMPTY,
    closed_by_ms,
    closed_candles,
    merged,
    sliced,
    valid_candles,
    worst,
)
from app.market.domain.models import STORED, CandleSeries, ContractKind, Funding, Interval
from app.market.domain.symbols import SymbolEntry
from app.market.services.service import MarketData
from app.market.services.state import CANDLE_SOURCE
from app.market.storage.market_data import MarketRepository, MarketSnapshot

CHUNK_CANDLES: Final = 200  # one request of the exchange
CHUNKS_PER_PAGE: Final = 4
CANDLE_WEIGHT: Final = 6  # of a chunk: its request, and another one where candles are missing
FUNDING_CHUNK_MS: Final = 13 * 86_400_000  # with a day of overlap one request of the exchange
FUNDING_OVERLAP_MS: Final = 86_400_000  # shows the interval of the first settlement
FUNDING_WEIGHT: Final = 10  # of a chunk: one more request where a settlement may be missing
CACHED_CHUNKS: Final = 512  # 11 kB each
CLOSED_TTL_S: Final = 3600.0  # the exchange may correct a candle after its close
BUDGET_SHARE: Final = 0.1  # of the quota, for all requests of this process
WINDOW_S: Final = 30.0
WAIT_S: Final = 15.0  # longest wait of a caller for the exchange

T = TypeVar("T")
_Key = tuple[str, str, int]  # symbol id, kind, start (ms)


@dataclass(slots=True)
class RequestBudget:
    """Weight that requests on demand may use within a window, so that the feed keeps the rest."""

    weight: int
    monotonic: Monotonic
    window_s: float = WINDOW_S
    _spent: deque[tuple[float, int]] = field(default_factory=deque, init=False)

    def spend(self, weight: int) -> None:
        """Counts a request. Raises UnavailableError (exchange_rate_limited) beyond the budget."""
        now = self.monotonic()
        while self._spent and self._spent[0][0] <= now - self.window_s:
            self._spent.popleft()
        if self._spent and sum(one for _, one in self._spent) + weight > self.weight:
            raise UnavailableError(
                Code.EXCHANGE_RATE_LIMITED,
                "Requests on demand have used up their part of the exchange's quota.",
                retry_after_s=self._spent[0][0] + self.window_s - now,
            )
        self._spent.append((now, weight))


@dataclass(frozen=True, slots=True)
class _Chunk(Generic[T]):
    value: T
    asked: float  # monotonic seconds of the request: the answer is at most that old
    complete_ms: int  # exchange time, rounded to the grid, up to which the chunk is complete


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Division of one kind of history into chunks."""

    kind: str
    ms: int  # length, and divisor of the beginning
    lag_ms: int  # from the end of the chunk until its last value is complete
    grid_ms: int  # values become complete at its multiples


@dataclass(frozen=True, slots=True)
class HistoryPage(Generic[T]):
    """Values of one page, oldest first; `next_ms` is the beginning of the next page.

    `age_s` is that of the oldest answer that the page rests on; None for stored values.
    `known_ms` is the exchange time up to which values are known.
    """

    value: T
    next_ms: int | None
    age_s: float | None
    known_ms: int | None
    status: DataStatus


@dataclass(frozen=True, slots=True)
class _Fetched(Generic[T]):
    """Chunks that cover a span up to `until_ms`."""

    parts: list[T]
    until_ms: float  # infinite where nothing is left
    age_s: float | None
    status: DataStatus


@dataclass(slots=True)
class MarketHistory:
    """Candles, funding and open interest of one symbol.

    Values that the service does not store come from the exchange in whole chunks. The most recently
    used chunks are cached. One request per chunk is under way, whatever the number of callers. An
    expired chunk is served as stale while the exchange does not answer.
    """

    market: MarketData
    budget: RequestBudget
    _cache: OrderedDict[_Key, _Chunk[Any]] = field(default_factory=OrderedDict, init=False)
    _locks: WeakValueDictionary[_Key, asyncio.Lock] = field(
        default_factory=WeakValueDictionary, init=False
    )

    async def candles(
        self, entry: SymbolEntry, interval: Interval, start_ms: int, end_ms: int, limit: int
    ) -> HistoryPage[CandleSeries]:
        """Returns up to `limit` closed candles opened in [start_ms, end_ms).

        Hours and days of a symbol that is scored are stored. A page of others may be short or empty
        although `next_ms` names more. Raises RefusedError for a contract whose code names another
        one, and UnavailableError.
        """
        if interval in STORED and entry.contract.code in self.market.live.market.series(interval):
            return await self._stored_candles(entry, interval, start_ms, end_ms, limit)
        now_ms = self.market.server_clock.now_ms()

        async def fetch(first_ms: int, until_ms: int) -> CandleSeries:
            answer = await self.market.exchange.candles(
                entry.contract, interval, first_ms, until_ms
            )
            return closed_candles(valid_candles(answer, interval), interval, now_ms)

        fetched = await self._fetch(
            _Chunks(interval.name, CHUNK_CANDLES * interval.ms, interval.ms, interval.grid_ms),
            entry,
            # A candle may have opened before the listing.
            max(start_ms, (entry.contract.listed_ms or 0) - interval.ms),
            end_ms,
            CANDLE_WEIGHT,
            fetch,
        )
        series = EMPTY
        for part in fetched.parts:
            series = merged(series, part, CHUNK_CANDLES * CHUNKS_PER_PAGE)
        first, last = series.opened_ms.searchsorted([start_ms, end_ms]).tolist()
        known_ms = int(series.opened_ms[-1]) + interval.ms if len(series) else None
        next_ms = int(fetched.until_ms) if fetched.until_ms < end_ms else None
        if last - first > limit:
            last = first + limit
            next_ms = int(series.opened_ms[last - 1]) + 1
        return HistoryPage(
            sliced(series, first, last), next_ms, fetched.age_s, known_ms, fetched.status
        )

    async def _stored_candles(
        self, entry: SymbolEntry, interval: Interval, start_ms: int, end_ms: int, limit: int
    ) -> HistoryPage[CandleSeries]:
        series = await self.market.candles(entry, interval, start_ms, end_ms, limit + 1)
        moment = self.market.moment()
        aged = moment.ages(entry)[CANDLE_SOURCE[interval]]
        # Candles stored before this start are not confirmed yet.
        is_unconfirmed = len(series) > 0 and aged.age_s is None
        return HistoryPage(
            sliced(series, 0, limit),
            int(series.opened_ms[limit - 1]) + 1 if len(series) > limit else None,
            None,
            None if aged.age_s is None else moment.server_ms - round(aged.age_s * 1e3),
            DataStatus.STALE if is_unconfirmed else aged.status,
        )

    async def funding(
        self, entry: SymbolEntry, start_ms: int, end_ms: int, limit: int
    ) -> HistoryPage[tuple[Funding, ...]]:
        """Returns up to `limit` rates settled in [start_ms, end_ms); a dated contract has none.

        Rates before those in memory come from the exchange. Raises RefusedError for a contract
        whose code names another one, and UnavailableError.
        """
        moment, code = self.market.moment(), entry.contract.code
        end_ms = min(end_ms, moment.server_ms + 1)
        recent, aged = moment.market.funding.get(code), moment.ages(entry)[Source.FUNDING]
        is_usable = aged.status is DataStatus.FRESH and recent is not None
        # The first rate in memory does not show its interval; an answer with earlier rates does.
        rates_known = recent.value if is_usable and recent is not None else ()
        stored = tuple(dropwhile(lambda one: one.interval_ms is None, rates_known))
        stored_ms = min(stored[0].settled_ms, end_ms) if stored else end_ms

        async def fetch(first_ms: int, until_ms: int) -> tuple[Funding, ...]:
            rates = await self.market.exchange.funding_history(
                code, first_ms - FUNDING_OVERLAP_MS, until_ms - 1
            )
            return tuple(one for one in rates if one.settled_ms >= first_ms)

        is_dated = entry.contract.kind is ContractKind.DATED
        fetched = await self._fetch(
            _Chunks("funding", FUNDING_CHUNK_MS, 0, Interval.HOUR.ms),  # settled on full hours
            entry,
            stored_ms if is_dated else max(start_ms, entry.contract.listed_ms or 0),
            stored_ms,
            FUNDING_WEIGHT,
            fetch,
        )
        rates = [one for part in fetched.parts for one in part if one.settled_ms < stored_ms]
        if fetched.until_ms >= stored_ms:
            rates += stored
        rates = [one for one in rates if start_ms <= one.settled_ms < end_ms]
        next_ms = int(fetched.until_ms) if fetched.until_ms < stored_ms else None
        if len(rates) > limit:
            rates = rates[:limit]
            next_ms = rates[-1].settled_ms + 1
        ages = [one for one in (fetched.age_s, aged.age_s if stored else None) if one is not None]
        return HistoryPage(
            tuple(rates),
            next_ms,
            max(ages, default=None),
            moment.server_ms - round(max(ages) * 1e3) if ages else None,
            fetched.status,
        )

    async def open_interest(
        self, entry: SymbolEntry, start_ms: int, end_ms: int, limit: int
    ) -> HistoryPage[tuple[MarketSnapshot, ...]]:
        """Returns up to `limit` hourly snapshots taken in [start_ms, end_ms).

        The exchange keeps no history: they begin when this service began to record them.
        """
        async with self.market.database.read() as unit:
            rows = await unit.get(MarketRepository).snapshots_of(
                entry.symbol_id, start_ms, end_ms, limit + 1
            )
        moment = self.market.moment()
        taken = moment.market.open_interest.times_ms
        aged = moment.ages(entry)[Source.CONTRACTS]
        return HistoryPage(
            rows[:limit],
            rows[limit - 1].taken_ms + 1 if len(rows) > limit else None,
            None,
            int(taken[-1]) if len(taken) else None,
            DataStatus.STALE if rows and aged.age_s is None else aged.status,
        )

    async def _fetch(
        self,
        chunks: _Chunks,
        entry: SymbolEntry,
        start_ms: int,
        end_ms: int,
        weight: int,
        fetch: Callable[[int, int], Awaitable[T]],
    ) -> _Fetched[T]:
        """Returns the chunks that cover [start_ms, end_ms), as many as a page may have."""
        now_ms = self.market.server_clock.now_ms()
        at_ms, end_ms = min(start_ms, end_ms), min(end_ms, now_ms)
        closed_ms = closed_by_ms(now_ms) // chunks.grid_ms * chunks.grid_ms
        parts, ages, statuses = list[T](), list[float](), [self.market.status()]
        while at_ms < end_ms and len(parts) < CHUNKS_PER_PAGE:
            first_ms = at_ms // chunks.ms * chunks.ms
            at_ms = first_ms + chunks.ms
            chunk, status = await self._get(
                (entry.symbol_id, chunks.kind, first_ms),
                entry,
                min(at_ms + chunks.lag_ms, closed_ms),
                weight,
                partial(fetch, first_ms, min(at_ms, now_ms)),
            )
            parts.append(chunk.value)
            ages.append(self.market.monotonic() - chunk.asked)
            statuses.append(status)
        # The span after the present has no values to wait for.
        until_ms = at_ms if at_ms < end_ms else math.inf
        return _Fetched(parts, until_ms, max(ages, default=None), worst(statuses))

    async def _get(
        self,
        key: _Key,
        entry: SymbolEntry,
        complete_ms: int,
        weight: int,
        fetch: Callable[[], Awaitable[T]],
    ) -> tuple[_Chunk[T], DataStatus]:
        """Returns a chunk that is complete up to `complete_ms`, or an older one as stale."""
        self._require_current(entry)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            cached: _Chunk[T] | None = self._cache.get(key)
            if cached is not None:
                self._cache.move_to_end(key)
                is_recent = self.market.monotonic() - cached.asked <= CLOSED_TTL_S
                if is_recent and cached.complete_ms >= complete_ms:
                    return cached, DataStatus.FRESH
            asked = self.market.monotonic()
            try:
                self.budget.spend(weight)
                async with asyncio.timeout(WAIT_S):
                    value = await fetch()
            except (TimeoutError, ServiceError) as error:
                if cached is not None and not isinstance(error, RefusedError):
                    return cached, DataStatus.STALE
                if isinstance(error, ServiceError):
                    raise
                raise ExchangeTimeoutError(
                    Code.EXCHANGE_TIMEOUT,
                    "The exchange did not answer in time.",
                    retry_after_s=WAIT_S,
                ) from None
            self._require_current(entry)  # a request may have been answered for a successor
            chunk = _Chunk(value, asked, complete_ms)
            self._cache[key] = chunk
            self._cache.move_to_end(key)
            while len(self._cache) > CACHED_CHUNKS:
                self._cache.popitem(last=False)
            return chunk, DataStatus.FRESH

    def _require_current(self, entry: SymbolEntry) -> None:
        if not self.market.registry.is_current(entry):
            raise RefusedError(
                Code.SYMBOL_NOT_TRADABLE,
                "The exchange has listed another contract under the code of this one.",
            )
