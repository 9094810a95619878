"""Counts requests against rate limits: in memory, and in the database for several processes."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.storage.base import SlidingWindowCounterSupport
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from app.foundation.errors import ServiceError
from app.foundation.ports import Clock
from app.foundation.sql.database import Database
from app.security.domain.rate_limits import LimitName, RateLimits, WindowCount
from app.security.storage.rate_limits import RateLimitRepository

# Counted in the database. The others are counted in memory and announced to the other processes:
# a look into the database would double the time of a read.
SHARED: Final = frozenset({LimitName.CHANGES, LimitName.SIGNALS, LimitName.HEAVY})
MAX_COUNTERS: Final = 10_000  # in memory; the one that was used longest ago is dropped
ANNOUNCED: Final = frozenset(LimitName) - SHARED
ANNOUNCED_SHARE: Final = 20  # a counter is announced from a 20th of its quota on
MAX_ANNOUNCED: Final = 1_000  # counters of one storage at a time
_ITEMS: Final = {1: RateLimitItemPerSecond, 60: RateLimitItemPerMinute}


@dataclass(slots=True)
class _Window:
    """Counts of one key; `number` of the current window since the start of the clock.

    `unannounced` are those of this process that other processes do not know.
    """

    expiry: int
    number: int
    current: int = 0
    previous: int = 0
    unannounced: int = 0


class WindowStorage(Storage, SlidingWindowCounterSupport):
    """Storage of `limits` in memory.

    The storage of the library uses the wall clock, which can be set back, and starts a task with
    every request that visits all keys.
    """

    STORAGE_SCHEME = None

    def __init__(self, monotonic: Callable[[], float], max_counters: int = MAX_COUNTERS) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._max_counters = max_counters
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._to_announce: dict[str, _Window] = {}
        self.is_announced = False

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        window = self._window(key, expiry)
        if self._count(window).used + amount > limit:
            return False
        window.current += amount
        if self.is_announced:
            window.unannounced += amount
            is_busy = window.current * ANNOUNCED_SHARE >= limit
            if is_busy and len(self._to_announce) < MAX_ANNOUNCED:
                self._to_announce[key] = window
        return True

    def take_announcements(self) -> list[tuple[str, int]]:
        """Keys with the requests that are to be announced, each once, the most requests first.

        Requests from before the previous window are left out: they count nowhere any more.
        """
        now_s, found = self._monotonic(), []
        for key, window in self._to_announce.items():
            if window.number >= int(now_s // window.expiry) - 1:
                found.append((key, window.unannounced))
            window.unannounced = 0
        self._to_announce.clear()
        return sorted(found, key=lambda one: (-one[1], one[0]))

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        count = self._count(self._window(key, expiry))
        return count.previous, count.left_s, count.current, count.left_s + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        del expiry
        await self.clear(key)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self.add(key, expiry, amount)

    def add(self, key: str, expiry: int, amount: int) -> int:
        """Counts requests without a limit and without announcing them."""
        window = self._window(key, expiry)
        window.current += amount
        return window.current

    async def get(self, key: str) -> int:
        window = self._windows.get(key)
        return 0 if window is None else self._window(key, window.expiry).current

    async def get_expiry(self, key: str) -> float:
        """End of the current window, in seconds of the monotonic clock."""
        window = self._windows.get(key)
        return self._monotonic() if window is None else (window.number + 1) * window.expiry

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        number = len(self._windows)
        self._windows.clear()
        return number

    async def clear(self, key: str) -> None:
        self._windows.pop(key, None)

    def _window(self, key: str, expiry: int) -> _Window:
        number = int(self._monotonic() // expiry)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(expiry, number)
            if len(self._windows) > self._max_counters:
                self._windows.popitem(last=False)
            return window
        self._windows.move_to_end(key)
        if number != window.number:
            window.previous = window.current if number == window.number + 1 else 0
            window.unannounced = min(window.unannounced, window.previous)
            window.number, window.current = number, 0
        return window

    def _count(self, window: _Window) -> WindowCount:
        left_s = (window.number + 1) * window.expiry - self._monotonic()
        return WindowCount(window.previous, window.current, left_s, window.expiry)


class SharedWindowStorage(Storage, SlidingWindowCounterSupport):
    """Storage of `limits` in a database that several processes use, by its clock."""

    STORAGE_SCHEME = None

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__()
        self._database = database
        self._clock = clock

    @property
    def base_exceptions(self) -> type[Exception]:
        return ServiceError

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        if amount > limit:
            return False
        async with self._database.write() as unit:
            counted = await unit.get(RateLimitRepository).add(key, expiry, amount, limit)
        return counted is not None

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        count = await self._read(key) or WindowCount(0, 0, float(expiry), expiry)
        return count.previous, count.left_s, count.current, count.left_s + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        del expiry
        await self.clear(key)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        async with self._database.write() as unit:
            count = await unit.get(RateLimitRepository).add(key, expiry, amount)
        return 0 if count is None else count.current

    async def get(self, key: str) -> int:
        count = await self._read(key)
        return 0 if count is None else count.current

    async def get_expiry(self, key: str) -> float:
        """End of the current window, as Unix time of this machine."""
        count = await self._read(key)
        return self._clock().timestamp() + (0.0 if count is None else count.left_s)

    async def check(self) -> bool:
        try:
            await self._database.ping()
        except ServiceError:
            return False
        return True

    async def reset(self) -> int | None:
        async with self._database.write() as unit:
            return await unit.get(RateLimitRepository).forget()

    async def clear(self, key: str) -> None:
        async with self._database.write() as unit:
            await unit.get(RateLimitRepository).forget(key)

    async def _read(self, key: str) -> WindowCount | None:
        async with self._database.read() as unit:
            return await unit.get(RateLimitRepository).read(key)


@dataclass(slots=True)
class _Counter:
    """Quota of one limit, and the storage of its counts."""

    item: RateLimitItem
    storage: WindowStorage | SharedWindowStorage
    strategy: SlidingWindowCounterRateLimiter = field(init=False)

    def __post_init__(self) -> None:
        self.strategy = SlidingWindowCounterRateLimiter(self.storage)


@dataclass(frozen=True, slots=True)
class Admission:
    """Result of a request; `limit` and its numbers are those of the tightest limit.

    `retry_after_s` is None for an admitted request.
    """

    limit: LimitName
    quota: int
    window_s: int
    remaining: int
    reset_s: int
    retry_after_s: float | None


@dataclass(slots=True)
class RateLimiter:
    """Counts requests by sliding windows of the library `limits`.

    Addresses have a storage of their own: a caller with many of them drops no counter of a key.
    """

    quotas: RateLimits
    monotonic: Callable[[], float]
    _counters: dict[LimitName, "_Counter"] = field(default_factory=dict, init=False)
    _announced: tuple[WindowStorage, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        shared, principals, addresses = (WindowStorage(self.monotonic) for _ in range(3))
        self._announced = (principals, addresses)
        for limit in LimitName:
            quota, window_s = self.quotas.quota(limit)
            storage = addresses if limit is LimitName.ADDRESS else principals
            storage = shared if limit in SHARED else storage
            item = _ITEMS[window_s](quota, namespace=limit.value)
            self._counters[limit] = _Counter(item, storage)

    def announce(self) -> None:
        """Notes from now on which requests are to be announced to other processes."""
        for storage in self._announced:
            storage.is_announced = True

    def take_announcements(self) -> list[tuple[str, int]]:
        """Counters outside of SHARED with the requests that no other process knows."""
        return [one for storage in self._announced for one in storage.take_announcements()]

    def count_elsewhere(self, key: str, amount: int) -> None:
        """Counts requests that another process has announced; unknown limits are left out."""
        name = key.partition("/")[0]
        if name in ANNOUNCED:
            counter = self._counters[LimitName(name)]
            if isinstance(counter.storage, WindowStorage):
                counter.storage.add(key, counter.item.get_expiry(), amount)

    async def admit(
        self,
        limits: Sequence[tuple[LimitName, str]],
        shared: SharedWindowStorage | None = None,
    ) -> Admission:
        """Counts one request against each limit in turn, up to the first that refuses it.

        With `shared` the limits of SHARED hold for all processes together. A request beyond the
        quota within this process never reaches the database. While the database is away, the
        limits hold for each process.
        """
        tightest: Admission | None = None
        for limit, identity in limits:
            counter = self._counters[limit]
            is_admitted = await counter.strategy.hit(counter.item, identity)
            if is_admitted and shared is not None and limit in SHARED:
                together = _Counter(counter.item, shared)
                with suppress(ServiceError):
                    if not await together.strategy.hit(counter.item, identity):
                        return await _admission(together, limit, identity, is_admitted=False)
            admission = await _admission(counter, limit, identity, is_admitted=is_admitted)
            if not is_admitted:
                return admission
            if tightest is None or (
                admission.remaining * tightest.quota < tightest.remaining * admission.quota
            ):
                tightest = admission
        if tightest is None:
            raise ValueError("a request needs at least one limit")
        return tightest


async def _admission(
    counter: _Counter, limit: LimitName, identity: str, *, is_admitted: bool
) -> Admission:
    item, window_s = counter.item, counter.item.get_expiry()
    previous, left_s, current, _ = await counter.storage.get_sliding_window(
        item.key_for(identity), window_s
    )
    count = WindowCount(previous, current, left_s, window_s)
    return Admission(
        limit,
        item.amount,
        window_s,
        max(0, item.amount - count.used) if is_admitted else 0,
        ceil(left_s),
        None if is_admitted else count.wait_s(item.amount),
    )
