"""Rate limits of KuCoin's REST interface: endpoint weights, and the limiter of the public pool."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from app.foundation.errors import Code, UnavailableError


class RandomSource(Protocol):
    """Source of random numbers in [0, 1)."""

    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Public route and its weight in the public pool."""

    path: str  # may hold {symbol}
    weight: int
    exact: bool = True  # whether numbers are parsed as decimals; values used as floats need not be
    method: str = "GET"


CONTRACTS: Final = Endpoint("/api/v1/contracts/active", 3)
CONTRACT: Final = Endpoint("/api/v1/contracts/{symbol}", 3)
TICKERS: Final = Endpoint("/api/v1/allTickers", 5)
TICKER: Final = Endpoint("/api/v1/ticker", 2)
KLINE: Final = Endpoint("/api/v1/kline/query", 3, exact=False)
DEPTH100: Final = Endpoint("/api/v1/level2/depth100", 10)  # 5 in some sources
FUNDING_NOW: Final = Endpoint("/api/v1/funding-rate/{symbol}/current", 2)
FUNDING_HISTORY: Final = Endpoint("/api/v1/contract/funding-rates", 5)
MARK_PRICE: Final = Endpoint("/api/v1/mark-price/{symbol}/current", 3)
TIMESTAMP: Final = Endpoint("/api/v1/timestamp", 2)
STATUS: Final = Endpoint("/api/v1/status", 4)
BULLET: Final = Endpoint("/api/v1/bullet-public", 10, method="POST")


@dataclass(frozen=True, slots=True)
class KucoinLimits:
    """Numbers in seconds, bytes and weights; the defaults are those of the protocol."""

    # One request
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 10.0
    total_timeout_s: float = 15.0
    body_bytes: int = 8 * 1024 * 1024  # after decompression
    connections: int = 64
    thread_bytes: int = 64 * 1024  # a longer body is decoded outside the event loop
    # One call: how long it may wait for its turn and for its retries
    patience_s: float = 60.0
    tries: int = 3
    backoff_first_s: float = 0.2
    backoff_cap_s: float = 5.0
    capacity_retries: int = 2
    capacity_wait_s: tuple[float, float] = (0.1, 1.0)
    retry_share: float = 0.1  # retries per call, in the long run
    retry_reserve: float = 10.0  # retries that can accumulate
    # The public pool
    quota: int = 2000
    window_s: float = 30.0
    margin_share: float = 0.025  # of the quota, left for answers that cross in flight
    closed_default_s: float = 30.0
    closed_cap_s: float = 60.0
    closed_jitter: float = 0.1
    endpoint_closed_s: float = 10.0
    ban_first_s: float = 30.0
    ban_cap_s: float = 900.0
    # The breaker
    breaker_consecutive: int = 5
    breaker_share: float = 0.5
    breaker_calls: int = 20
    breaker_window_s: float = 30.0
    breaker_probe_s: float = 15.0
    # Paging
    candles_per_page: int = 200  # right under both documented limits, 200 and 500
    funding_page_days: int = 14


_GRACE_S: Final = 0.05  # the exchange's clock ticks in ms, ours finer: never be early
_LATER_S: Final = 1.0  # an end that much later belongs to the exchange's next window
_SHORTEST_CLOSED_S: Final = 0.1  # a shorter reset of a 429 carries no information
_LONGEST_WINDOW: Final = 2.0  # a reset beyond so many windows is absurd


@dataclass(frozen=True, slots=True)
class QuotaHeaders:
    """Rate-limit headers of an answer; None for absent ones."""

    limit: int | None
    remaining: int | None
    reset_ms: int | None

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> "QuotaHeaders":
        return cls(*(_whole(headers.get(f"gw-ratelimit-{n}")) for n in _NAMES))


_NAMES: Final = ("limit", "remaining", "reset")
SILENT: Final = QuotaHeaders(None, None, None)


def _whole(value: str | None) -> int | None:
    """Whole number of a header; None when missing, negative, absurdly long or unreadable."""
    known = value is not None and len(value) <= 12 and value.isascii() and value.isdigit()
    return int(value) if known and value is not None else None


@dataclass(frozen=True, slots=True)
class RequestPermit:
    """Permission to send one request; `first` is true when it began its window."""

    weight: int
    window: int
    first: bool


@dataclass(frozen=True, slots=True)
class PoolShare:
    """Fractions of the quota: of this process, and of all processes of one address together."""

    own: float
    together: float


WHOLE: Final = PoolShare(1.0, 1.0)  # no other process uses the address


def whole_pool() -> PoolShare:
    """Share of a process that runs alone."""
    return WHOLE


class RequestPool:
    """Weighted quota per window; the whole quota may go at once, waiters are served in order.

    `share` is read before each request: it shrinks as soon as another process appears. The
    exchange's headers include the use of other processes, which counts against the common part.
    """

    def __init__(
        self,
        limits: KucoinLimits,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        dice: RandomSource,
        share: Callable[[], PoolShare] = whole_pool,
    ) -> None:
        self._limits = limits
        self._share = share
        self._monotonic = monotonic
        self._sleep = sleep
        self._dice = dice
        self._turn = asyncio.Lock()  # wakes its waiters in the order of their arrival
        self._quota = limits.quota
        self._window = 0
        self._ends: float | None = None
        self._used = 0  # by all processes, as far as known
        self._own = 0  # by this process
        self._in_flight = 0
        self._queued_weight = 0
        self._closed_until = -math.inf
        self._reset_at = -math.inf

    async def take(self, weight: int, deadline: float) -> RequestPermit:
        """Wait for room, at most until `deadline` (monotonic seconds).

        Raises exchange_rate_limited at once when the room cannot come in time.
        """
        self._raise_if_too_late(self._estimate(weight), deadline)
        self._queued_weight += weight
        try:
            async with asyncio.timeout(max(0.0, deadline - self._monotonic())), self._turn:
                while (wait := self._wait(weight)) > 0:
                    self._raise_if_too_late(wait, deadline)
                    await self._sleep(wait)
                return self._reserve(weight)
        except TimeoutError:
            raise self._limited(self._estimate(weight)) from None
        finally:
            self._queued_weight -= weight

    def give_back(self, ticket: RequestPermit) -> None:
        """Return a permit whose request was never sent."""
        self._in_flight -= ticket.weight
        if ticket.window == self._window:
            self._used -= ticket.weight
            self._own -= ticket.weight

    def settle(self, ticket: RequestPermit, quota: QuotaHeaders) -> None:
        """Finish a request; synchronise the window with its headers.

        An answer's reset, counted from its arrival, is never before the true end of the
        window, so it may replace our own guess (sending time plus window), which may be
        early.
        """
        self._in_flight -= ticket.weight
        self._quota = quota.limit or self._quota
        now = self._monotonic()
        self._start_new_window(now)
        ends = self._stated_end(now, quota)
        if self._ends is None or (ticket.window != self._window and ends is None):
            return
        if ends is None:
            if ticket.first:
                self._ends = max(self._ends, now + self._limits.window_s)
        elif ends > self._ends + _LATER_S and now >= self._closed_until:
            self._window += 1
            self._ends = ends
            self._used = self._own = self._in_flight + ticket.weight
        elif ticket.window == self._window and not self._is_closed(now):
            self._ends = ends if ticket.first else min(self._ends, ends)
        if quota.remaining is not None and (ends is None or ends >= self._ends - _LATER_S):
            self._used = max(self._used, self._quota - quota.remaining)

    def close(self, quota: QuotaHeaders) -> None:
        """Close the pool after HTTP 429 until its reset and up to 10 % longer.

        A missing or unusable reset counts as the default, a long one as the cap.
        """
        limits = self._limits
        stated = (quota.reset_ms or 0) / 1000
        if stated < _SHORTEST_CLOSED_S:
            stated = limits.closed_default_s
        reset = min(stated, limits.closed_cap_s)
        now = self._monotonic()
        jittered = now + reset * (1 + limits.closed_jitter * self._dice.random())
        if jittered > self._closed_until:
            self._closed_until = jittered
            self._reset_at = now + reset
            self._ends = jittered

    def refusal(self) -> UnavailableError:
        """Error for a caller that cannot wait for the pool to open."""
        return self._limited(self._wait(1))

    def closed_for(self) -> float:
        """Seconds until the pool opens again; zero when it is open."""
        return max(0.0, self._closed_until - self._monotonic())

    def _is_closed(self, now: float) -> bool:
        return now < self._closed_until

    def _room(self, share: float) -> int:
        most = self._quota - math.ceil(self._quota * self._limits.margin_share)
        return min(most, math.floor(self._quota * share))

    def _fits(self, weight: int) -> bool:
        """True if a weight fits the common part and our own; an oversized weight fits alone."""
        share = self._share()
        together = self._used + weight <= self._room(share.together) or self._used == 0
        return together and (self._own + weight <= self._room(share.own) or self._own == 0)

    def _start_new_window(self, now: float) -> None:
        """Start a new window after the end; requests in flight may count in the next one."""
        if self._ends is not None and now >= self._ends + _GRACE_S and not self._is_closed(now):
            self._window += 1
            self._ends = None
            self._used = self._own = self._in_flight

    def _wait(self, weight: int) -> float:
        now = self._monotonic()
        self._start_new_window(now)
        if self._is_closed(now):
            return self._closed_until + _GRACE_S - now
        if self._ends is not None and now >= self._ends:
            # The window of a request at this moment is ambiguous: wait until it has passed.
            return self._ends + _GRACE_S - now
        if self._ends is None or self._fits(weight):
            return 0.0
        return self._ends + _GRACE_S - now

    def _estimate(self, weight: int) -> float:
        """Seconds that a new waiter waits behind the queue."""
        wait = self._wait(weight + self._queued_weight)
        behind = max(0, self._queued_weight + weight - 1) // max(1, self._room(self._share().own))
        return wait + behind * self._limits.window_s if wait else 0.0

    def _reserve(self, weight: int) -> RequestPermit:
        first = self._ends is None
        if self._ends is None:
            self._ends = self._monotonic() + self._limits.window_s
        self._used += weight
        self._own += weight
        self._in_flight += weight
        return RequestPermit(weight, self._window, first)

    def _stated_end(self, now: float, quota: QuotaHeaders) -> float | None:
        if quota.reset_ms is None:
            return None
        reset = quota.reset_ms / 1000
        return now + reset if reset <= _LONGEST_WINDOW * self._limits.window_s else None

    def _raise_if_too_late(self, wait: float, deadline: float) -> None:
        if wait > 0 and self._monotonic() + wait > deadline:
            raise self._limited(wait)

    def _limited(self, wait: float) -> UnavailableError:
        """Error with the stated reset while the pool is closed, else with our own wait."""
        left = self._reset_at - self._monotonic()
        return UnavailableError(
            Code.EXCHANGE_RATE_LIMITED,
            "the exchange's request quota is used up",
            retry_after_s=float(max(1, math.ceil(left if left > 0 else wait))),
        )
