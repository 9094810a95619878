"""A circuit breaker: stops asking an exchange that fails, and asks again one probe at a time."""

from collections import deque
from collections.abc import Callable

from app.adapters.kucoin.limits import KucoinLimits


class Breaker:
    """Opens at 5 failures in a row, or at half of at least 20 calls within 30 s.

    Counts on the monotonic clock in a rolling window; a success ends a row of failures. While
    open, one probe may leave every 15 s; its success closes the breaker and forgets the past.
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
        """A request leaves now; true makes it the probe. Only when `wait()` is zero."""
        self._probing = self._probe_at is not None
        return self._probing

    def abandon(self, probe: bool) -> None:
        """The request ended without telling anything about the exchange."""
        self._probing = self._probing and not probe

    def success(self, probe: bool) -> None:
        self._row = 0
        if probe:
            self._probe_at = None
            self._probing = False
            self._calls.clear()
        self._note(failed=False)

    def failure(self, probe: bool) -> None:
        """Failures of requests that left before it opened do not put off the next probe."""
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
