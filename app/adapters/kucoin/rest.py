"""REST client: bans, circuit breaker and retry budget around each request to the exchange."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from app.adapters.kucoin.limiter import (
    SILENT,
    Endpoint,
    KucoinLimits,
    PoolShare,
    RandomSource,
    RequestPermit,
    RequestPool,
    whole_pool,
)
from app.adapters.kucoin.transport import (
    ExchangeResponse,
    HealthEvidence,
    HttpTransport,
    RequestFailure,
    RequestSuccess,
    RetryAction,
    interpret_response,
)
from app.foundation.backoff import full_jitter_s
from app.foundation.errors import Code, ServiceError, UnavailableError
from app.market.domain.models import ExchangeLink, LinkState


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

    def record_success(self, sent_at: float) -> None:
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
        self._failures_in_a_row = 0
        self._probe_at: float | None = None  # None while closed
        self._is_probing = False

    def wait(self) -> float:
        """Seconds until a request may leave; zero when it may now."""
        if self._probe_at is None:
            return 0.0
        left = self._probe_at - self._monotonic()
        if left <= 0 and self._is_probing:
            return self._limits.breaker_probe_s
        return max(0.0, left)

    def enter(self) -> bool:
        """Register a departing request; true makes it the probe. Requires `wait()` of zero."""
        self._is_probing = self._probe_at is not None
        return self._is_probing

    def abandon(self, probe: bool) -> None:
        """Drop a request that ended without evidence about the exchange."""
        self._is_probing = self._is_probing and not probe

    def success(self, probe: bool) -> None:
        self._failures_in_a_row = 0
        if probe:
            self._probe_at = None
            self._is_probing = False
            self._calls.clear()
        self._note(failed=False)

    def failure(self, probe: bool) -> None:
        """Count a failure; while open, only a probe's failure delays the next probe."""
        self._failures_in_a_row += 1
        self._note(failed=True)
        if probe or (self._probe_at is None and self._is_bad()):
            self._probe_at = self._monotonic() + self._limits.breaker_probe_s
            self._is_probing = False

    def _note(self, *, failed: bool) -> None:
        now = self._monotonic()
        self._calls.append((now, failed))
        while self._calls[0][0] <= now - self._limits.breaker_window_s:
            self._calls.popleft()

    def _is_bad(self) -> bool:
        limits = self._limits
        failed = sum(failed for _, failed in self._calls)
        many = len(self._calls) >= limits.breaker_calls
        return self._failures_in_a_row >= limits.breaker_consecutive or (
            many and failed >= limits.breaker_share * len(self._calls)
        )


class RetryBudget:
    """Token bucket of retries: each call adds a tenth, a retry takes one."""

    def __init__(self, limits: KucoinLimits) -> None:
        self._limits = limits
        self._tokens = limits.retry_reserve

    def call(self) -> None:
        self._tokens = min(self._tokens + self._limits.retry_share, self._limits.retry_reserve)

    def spend(self) -> bool:
        """Take one retry from the budget; False when it is used up."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def capacity_wait_s(limits: KucoinLimits, dice: RandomSource) -> float:
    """Short pause in seconds after "system busy", which is not our quota."""
    low, high = limits.capacity_wait_s
    return low + (high - low) * dice.random()


class LinkTracker:
    """State of the link to the exchange; an older success does not hide a newer failure."""

    def __init__(self, *, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic
        self._state = LinkState.UNTRIED
        self._since = now()
        self._error: ServiceError | None = None
        self._failed_at: float | None = None
        self._last_success: datetime | None = None

    def success(self, sent_at: float) -> None:
        self._last_success = self._now()
        if self._failed_at is not None and sent_at < self._failed_at:
            return
        self._error = None
        self._enter(LinkState.UP)

    def failure(self, error: ServiceError) -> None:
        self._failed_at = self._monotonic()
        self._error = error
        self._enter(LinkState.DOWN)

    def _enter(self, state: LinkState) -> None:
        if state is not self._state:
            self._state = state
            self._since = self._now()

    def report(self, retry_in_s: float) -> ExchangeLink:
        """Link with `retry_in_s`, seconds without requests, shown only while the link is down."""
        error = self._error
        return ExchangeLink(
            state=self._state,
            since=self._since,
            cause=None if error is None else error.code.value,
            detail=None if error is None else error.detail,
            last_success_at=self._last_success,
            retry_in_s=None if error is None else retry_in_s,
        )


T = TypeVar("T")
OnRequest = Callable[[str, str, float], None]  # path, "ok" or an error code, seconds

OK = "ok"


@dataclass(frozen=True, slots=True)
class RestDependencies:
    """Clock, randomness and observers, injected."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    dice: RandomSource
    on_request: OnRequest
    share: Callable[[], PoolShare] = whole_pool


@dataclass(frozen=True, slots=True)
class _SendPermit:
    """Permission to send: a place in the pool, and whether this is the breaker's probe."""

    ticket: RequestPermit
    probe: bool
    sent_at: float


class RestApi(Protocol):
    """Requests as `RestClient` makes them, live or replayed."""

    def link(self) -> ExchangeLink: ...

    async def get(
        self,
        endpoint: Endpoint,
        read: Callable[[object], T],
        params: Mapping[str, str],
        *,
        symbol: str = "",
        patience_s: float,
    ) -> T: ...


class RestClient:
    """Read-only requests to one exchange within all its limits.

    A call waits for its turn as long as its patience allows, is tried up to three times within
    the retry budget, and ends in data or in a domain error.
    """

    def __init__(
        self,
        wire: HttpTransport,
        limits: KucoinLimits,
        around: RestDependencies,
    ) -> None:
        self._limits = limits
        self._around = around
        self._wire = wire
        self._pool = RequestPool(
            limits,
            monotonic=around.monotonic,
            sleep=around.sleep,
            dice=around.dice,
            share=around.share,
        )
        self._bans = TemporaryBans(limits, monotonic=around.monotonic)
        self._circuit_breaker = CircuitBreaker(limits, monotonic=around.monotonic)
        self._budget = RetryBudget(limits)
        self._link = LinkTracker(now=around.now, monotonic=around.monotonic)

    def link(self) -> ExchangeLink:
        waits = (self._circuit_breaker.wait(), self._bans.banned_for(), self._pool.closed_for())
        return self._link.report(max(waits))

    async def get(
        self,
        endpoint: Endpoint,
        read: Callable[[object], T],
        params: Mapping[str, str],
        *,
        symbol: str = "",
        patience_s: float,
    ) -> T:
        """Request `endpoint` and parse its data with the pure function `read`.

        Raises UnavailableError and its kinds, or RefusedError; `read` may raise
        BadResponseError.
        """
        deadline = self._around.monotonic() + patience_s
        path = endpoint.path.format(symbol=symbol)
        self._budget.call()
        attempts = 0
        fault: RequestFailure | None = None
        while True:
            try:
                permit = await self._wait_for_permit(endpoint, deadline)
            except UnavailableError:
                if fault is not None:  # the original error explains more than the refusal to retry
                    raise self._with_retry_time(fault, endpoint) from None
                raise
            attempts += 1
            outcome, size = await self._send(endpoint, permit, path, params, deadline)
            if isinstance(outcome, RequestSuccess):
                return await self._run_aside(size, read, outcome.data)
            fault = outcome
            pause = self._pause(fault, attempts)
            if pause is None or self._around.monotonic() + pause >= deadline:
                raise self._with_retry_time(fault, endpoint)
            if pause:
                await self._around.sleep(pause)

    async def _wait_for_permit(self, endpoint: Endpoint, deadline: float) -> _SendPermit:
        """Wait until pool, bans and breaker all allow a request; raises when that is too late."""
        monotonic = self._around.monotonic
        while True:
            self._require_closed_breaker()
            while (wait := self._bans.wait(endpoint)) > 0:
                if monotonic() + wait > deadline:
                    raise self._bans.refusal(endpoint)
                await self._around.sleep(wait)
            ticket = await self._pool.take(endpoint.weight, deadline)
            # Bans and breaker may have changed during the wait. Nothing is awaited from here to
            # the request, so the state holds until then.
            if self._bans.wait(endpoint) == 0 and self._circuit_breaker.wait() == 0:
                return _SendPermit(ticket, self._circuit_breaker.enter(), monotonic())
            self._pool.give_back(ticket)

    def _require_closed_breaker(self) -> None:
        wait = self._circuit_breaker.wait()
        if wait > 0:
            raise UnavailableError(
                Code.EXCHANGE_UNAVAILABLE,
                "the exchange keeps failing; the next request follows shortly",
                retry_after_s=wait,
            )

    async def _send(
        self,
        endpoint: Endpoint,
        permit: _SendPermit,
        path: str,
        params: Mapping[str, str],
        deadline: float,
    ) -> tuple[RequestSuccess | RequestFailure, int]:
        """Send one request, update pool, bans, breaker and link; returns outcome and body size."""
        size, quota = 0, SILENT
        try:
            within_s = deadline - permit.sent_at
            answer = await self._wire.ask(endpoint.method, path, params, within_s)
            outcome: RequestSuccess | RequestFailure
            if isinstance(answer, ExchangeResponse):
                size, quota = len(answer.body), answer.quota
                outcome = await self._run_aside(size, interpret_response, answer, endpoint)
            else:
                outcome = answer
        except BaseException:  # cancelled: no evidence, but pool and breaker must be released
            self._pool.settle(permit.ticket, SILENT)
            self._circuit_breaker.abandon(permit.probe)
            raise
        self._pool.settle(permit.ticket, quota)
        if isinstance(outcome, RequestFailure) and outcome.remedy is RetryAction.POOL:
            self._pool.close(quota)
        self._record_outcome(endpoint, permit, outcome)
        return outcome, size

    def _record_outcome(
        self, endpoint: Endpoint, permit: _SendPermit, outcome: RequestSuccess | RequestFailure
    ) -> None:
        fault = outcome if isinstance(outcome, RequestFailure) else None
        health = fault.health if fault else HealthEvidence.ALIVE
        if health is HealthEvidence.ALIVE:
            self._circuit_breaker.success(permit.probe)
            self._bans.record_success(permit.sent_at)
        elif health is HealthEvidence.SICK:
            self._circuit_breaker.failure(permit.probe)
        else:
            self._circuit_breaker.abandon(permit.probe)
        if fault and fault.remedy is RetryAction.BAN:
            self._bans.ban(permit.sent_at)
        if fault and fault.remedy is RetryAction.ENDPOINT:
            self._bans.close(endpoint)
        if fault and (health is not HealthEvidence.ALIVE or fault.remedy is RetryAction.POOL):
            self._link.failure(fault.error)
        else:
            self._link.success(permit.sent_at)
        seconds = self._around.monotonic() - permit.sent_at
        self._around.on_request(endpoint.path, fault.error.code.value if fault else OK, seconds)

    def _pause(self, fault: RequestFailure, attempts: int) -> float | None:
        """Seconds before the next try, None to give up; pool and bans set their own waits."""
        if fault.remedy is RetryAction.NONE or attempts >= self._limits.tries:
            return None
        if fault.remedy in {RetryAction.POOL, RetryAction.ENDPOINT, RetryAction.BAN}:
            return 0.0
        if fault.remedy is RetryAction.SHORT_PAUSE:
            if attempts > self._limits.capacity_retries or not self._budget.spend():
                return None
            return capacity_wait_s(self._limits, self._around.dice)
        if not self._budget.spend():
            return None
        limits = self._limits
        return full_jitter_s(
            attempts, limits.backoff_first_s, limits.backoff_cap_s, self._around.dice.random()
        )

    def _with_retry_time(self, fault: RequestFailure, endpoint: Endpoint) -> ServiceError:
        """Error of the failure, with a useful retry time."""
        if (
            fault.remedy in {RetryAction.ENDPOINT, RetryAction.BAN}
            and self._bans.wait(endpoint) > 0
        ):
            return self._bans.refusal(endpoint)
        if fault.remedy is RetryAction.POOL:
            return self._pool.refusal()
        return fault.error

    async def _run_aside(self, size: int, work: Callable[..., T], *arguments: object) -> T:
        """Run pure work on a body of `size` bytes, in a thread when it is long."""
        if size > self._limits.thread_bytes:
            return await asyncio.to_thread(work, *arguments)
        return work(*arguments)
