"""Temporary bans, circuit breaker and retry budget of requests to the exchange."""

import math
from collections import deque
from collections.abc import Callable

from app.adapters.kucoin.limits import Endpoint, KucoinLimits, RandomSource
from app.foundation.errors import Code, UnavailableError


class TemporaryBans:
    """Bans of single endpoints (code 200002) and of the whole exchange (1015 page).

    A new ban right after one lasts twice as long.
    """

    def __init__(self, limits: KucoinLimits, *, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._banned_until = -math.inf
        self._ban_s = 0.0
        self._endpoints: dict[Endpoint, float] = {}

    def ban(self, sent_at: float) -> None:
        """Ban all requests after a 1015 page to a request sent at `sent_at`.

        Requests in flight at the start of a ban return the same page; they do not lengthen
        it.
        """
        if sent_at < self._banned_until:
            return
        limits = self._limits
        self._ban_s = min(self._ban_s * 2 or limits.ban_first_s, limits.ban_cap_s)
        self._banned_until = self._monotonic() + self._ban_s

    def close(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint] = self._monotonic() + self._limits.endpoint_closed_s

    def passed(self, sent_at: float) -> None:
        """End any ban: the exchange itself answered a request sent at `sent_at`."""
        if sent_at >= self._banned_until:
            self._ban_s = 0.0

    def banned_for(self) -> float:
        return max(0.0, self._banned_until - self._monotonic())

    def wait(self, endpoint: Endpoint) -> float:
        """Seconds until a request to `endpoint` may leave; zero when it may now."""
        closed_until = self._endpoints.get(endpoint, -math.inf)
        return max(self.banned_for(), closed_until - self._monotonic(), 0.0)

    def refusal(self, endpoint: Endpoint) -> UnavailableError:
        """Error for a caller that cannot wait that long."""
        retry_after_s = float(max(1, math.ceil(self.wait(endpoint))))
        if self.banned_for() > 0:
            return UnavailableError(
                Code.EXCHANGE_BANNED,
                "the exchange's front end has blocked this address for a while",
                retry_after_s=retry_after_s,
            )
        return UnavailableError(
            Code.EXCHANGE_RATE_LIMITED,
            "the exchange asked for a pause on this endpoint",
            retry_after_s=retry_after_s,
        )


class CircuitBreaker:
    """Opens at 5 failures in a row, or at half of at least 20 calls within 30 s.

    Counts on the monotonic clock in a rolling window; a success ends a row of failures. While
    open, one probe may leave every 15 s; its success closes the breaker and clears the window.
    """

    def __init__(self, limits: KucoinLimits, *, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._calls: deque[tuple[float, bool]] = deque()
        self._row = 0
        self._probe_at: float | None = None  # None while closed
        self._probing = False

    def wait(self) -> float:
        """Seconds until a request may leave; zero when it may now."""
        if self._probe_at is None:
            return 0.0
        left = self._probe_at - self._monotonic()
        if left <= 0 and self._probing:
            return self._limits.breaker_probe_s
        return max(0.0, left)

    def enter(self) -> bool:
        """Register a departing request; true makes it the probe. Requires `wait()` of zero."""
        self._probing = self._probe_at is not None
        return self._probing

    def abandon(self, probe: bool) -> None:
        """Drop a request that ended without evidence about the exchange."""
        self._probing = self._probing and not probe

    def success(self, probe: bool) -> None:
        self._row = 0
        if probe:
            self._probe_at = None
            self._probing = False
            self._calls.clear()
        self._note(failed=False)

    def failure(self, probe: bool) -> None:
        """Count a failure; while open, only a probe's failure delays the next probe."""
        self._row += 1
        self._note(failed=True)
        if probe or (self._probe_at is None and self._is_bad()):
            self._probe_at = self._monotonic() + self._limits.breaker_probe_s
            self._probing = False

    def _note(self, *, failed: bool) -> None:
        now = self._monotonic()
        self._calls.append((now, failed))
        while self._calls[0][0] <= now - self._limits.breaker_window_s:
            self._calls.popleft()

    def _is_bad(self) -> bool:
        limits = self._limits
        failed = sum(failed for _, failed in self._calls)
        many = len(self._calls) >= limits.breaker_calls
        return self._row >= limits.breaker_consecutive or (
            many and failed >= limits.breaker_share * len(self._calls)
        )


class RetryBudget:
    """Token bucket of retries: each call adds a tenth, a retry takes one."""

    def __init__(self, limits: KucoinLimits) -> None:
        self._limits = limits
        self._saved = limits.retry_reserve

    def call(self) -> None:
        self._saved = min(self._saved + self._limits.retry_share, self._limits.retry_reserve)

    def spend(self) -> bool:
        """Take one retry from the budget; False when it is used up."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


def capacity_wait_s(limits: KucoinLimits, dice: RandomSource) -> float:
    """Short pause in seconds after "system busy", which is not our quota."""
    low, high = limits.capacity_wait_s
    return low + (high - low) * dice.random()
