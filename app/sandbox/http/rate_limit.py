"""KuCoin's public pool: weight per address in a fixed window of real time, with counters."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW_S = 30.0
REMEMBERED = 50_000

# Weight of each public path; {symbol} replaces the last segment of a symbol path.
WEIGHTS = {
    "/api/v1/contracts/active": 3,
    "/api/v1/contracts/{symbol}": 3,
    "/api/v1/ticker": 2,
    "/api/v1/allTickers": 5,
    "/api/v1/level2/snapshot": 3,
    "/api/v1/level2/depth20": 5,
    "/api/v1/level2/depth100": 10,
    "/api/v1/trade/history": 5,
    "/api/v1/kline/query": 3,
    "/api/v1/mark-price/{symbol}/current": 3,
    "/api/v1/index/query": 2,
    "/api/v1/interest/query": 5,
    "/api/v1/premium/query": 3,
    "/api/v1/funding-rate/{symbol}/current": 2,
    "/api/v1/contract/funding-rates": 5,
    "/api/v1/contracts/risk-limit/{symbol}": 5,
    "/api/v1/timestamp": 2,
    "/api/v1/status": 4,
    "/api/v1/bullet-public": 10,
}


@dataclass(frozen=True, slots=True)
class RateLimitDecision:
    """Decision on one request; `reset` is the header's text, None to omit it."""

    allowed: bool
    remaining: int
    reset: str | None
    headers: bool = True


@dataclass(slots=True)
class QuotaWindow:
    """Running window of one address."""

    started: float
    used: int = 0
    closed: bool = False


@dataclass(slots=True)
class ForcedClosure:
    """Manually closed window: its end, and the text of the reset header."""

    until: float
    reset: str
    is_reported: bool = False


@dataclass(slots=True)
class RequestCounters:
    """Counters since the last reset; times are monotonic seconds."""

    total: int = 0
    weight: int = 0
    rejected: int = 0
    in_closed_window: int = 0
    by_path: Counter[str] = field(default_factory=Counter)
    by_status: Counter[str] = field(default_factory=Counter)
    arrivals: deque[tuple[float, str, str, bool]] = field(
        default_factory=lambda: deque(maxlen=REMEMBERED)
    )


class PublicPool:
    """Fixed windows per address that start with the first request and refill as a whole.

    The request that exceeds the quota is `rejected` and closes the window. A request after that
    answer and before the reset also counts as `in_closed_window`.
    """

    def __init__(self, quota: int, monotonic: Callable[[], float]) -> None:
        self.quota = quota
        self.window_s = WINDOW_S
        self._monotonic = monotonic
        self._windows: dict[str, QuotaWindow] = {}
        self.closure: ForcedClosure | None = None
        self.tally = RequestCounters()

    def close(self, seconds: float, reset: str) -> None:
        """Close the pool for all addresses: every request gets 429 for that time."""
        self.closure = ForcedClosure(self._monotonic() + seconds, reset)

    def reset(self) -> None:
        """Drop all windows; counters stay."""
        self._windows.clear()
        self.closure = None

    def arrive(self, address: str, path: str, target: str, weight: int) -> RateLimitDecision:
        """Count and decide on one request; `path` is the endpoint, `target` the request."""
        now = self._monotonic()
        verdict, late = self._judge(address, weight, now)
        tally = self.tally
        tally.total += 1
        tally.by_path[path] += 1
        tally.arrivals.append((now, path, target, late))
        tally.in_closed_window += late
        if verdict.allowed:
            tally.weight += weight
        else:
            tally.rejected += 1
        return verdict

    def _judge(self, address: str, weight: int, now: float) -> tuple[RateLimitDecision, bool]:
        closure = self.closure
        if closure is not None and now < closure.until:
            left = str(max(1, round((closure.until - now) * 1000)))
            reset = {"present": left, "absent": None}.get(closure.reset, closure.reset)
            late, closure.is_reported = closure.is_reported, True
            return RateLimitDecision(False, 0, reset, closure.reset != "absent"), late
        window = self._windows.get(address)
        if window is None or now - window.started >= self.window_s:
            window = self._windows[address] = QuotaWindow(now)
        left = str(max(1, round((window.started + self.window_s - now) * 1000)))
        if window.used + weight > self.quota:
            late, window.closed = window.closed, True
            return RateLimitDecision(False, max(0, self.quota - window.used), left), late
        # A light request after a rejected heavy one still counts as in a closed window.
        window.used += weight
        return RateLimitDecision(True, self.quota - window.used, left), window.closed
