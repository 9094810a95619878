"""The REST client: waits its turn, asks, judges, tries again where that may help."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from app.adapters.kucoin.answers import Answer, Fault, Good, Health, Remedy, judge
from app.adapters.kucoin.breaker import Breaker
from app.adapters.kucoin.gates import Gates
from app.adapters.kucoin.limiter import SILENT, Pool, PoolShare, Ticket, whole_pool
from app.adapters.kucoin.limits import Dice, Endpoint, KucoinLimits
from app.adapters.kucoin.link import Link
from app.adapters.kucoin.retry import RetryBudget, capacity_wait_s
from app.adapters.kucoin.wire import Asks
from app.foundation.backoff import full_jitter_s
from app.foundation.errors import Code, ServiceError, UnavailableError
from app.market.domain.models import ExchangeLink

T = TypeVar("T")
OnRequest = Callable[[str, str, float], None]  # path, "ok" or an error code, seconds

OK = "ok"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Clock, randomness and observers, injected."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    dice: Dice
    on_request: OnRequest
    share: Callable[[], PoolShare] = whole_pool


@dataclass(frozen=True, slots=True)
class _Pass:
    """The right to send: a place in the pool, and whether this is the breaker's probe."""

    ticket: Ticket
    probe: bool
    sent_at: float


class Rest(Protocol):
    """Requests as `RestClient` makes them, whoever answers."""

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
    """Requests to one exchange under all its rules at once; none of them changes anything there.

    A call waits for its turn as long as its patience allows, is tried up to three times within
    the retry budget, and ends in data or in an error of the domain.
    """

    def __init__(
        self,
        wire: Asks,
        limits: KucoinLimits,
        around: Surroundings,
    ) -> None:
        self._limits = limits
        self._around = around
        self._wire = wire
        self._pool = Pool(
            limits,
            monotonic=around.monotonic,
            sleep=around.sleep,
            dice=around.dice,
            share=around.share,
        )
        self._gates = Gates(limits, monotonic=around.monotonic)
        self._breaker = Breaker(limits, monotonic=around.monotonic)
        self._budget = RetryBudget(limits)
        self._link = Link(now=around.now, monotonic=around.monotonic)

    def link(self) -> ExchangeLink:
        waits = (self._breaker.wait(), self._gates.banned_for(), self._pool.closed_for())
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
        """Ask `endpoint` and read its data with the pure function `read`.

        Raises UnavailableError and its kinds, or RefusedError; `read` may raise BadResponseError.
        """
        deadline = self._around.monotonic() + patience_s
        path = endpoint.path.format(symbol=symbol)
        self._budget.call()
        tried = 0
        fault: Fault | None = None
        while True:
            try:
                leave = await self._turn(endpoint, deadline)
            except UnavailableError:
                if fault is not None:  # what happened tells more than that we may not ask again
                    raise self._told(fault, endpoint) from None
                raise
            tried += 1
            outcome, size = await self._send(endpoint, leave, path, params, deadline)
            if isinstance(outcome, Good):
                return await self._aside(size, read, outcome.data)
            fault = outcome
            pause = self._pause(fault, tried)
            if pause is None or self._around.monotonic() + pause >= deadline:
                raise self._told(fault, endpoint)
            if pause:
                await self._around.sleep(pause)

    async def _turn(self, endpoint: Endpoint, deadline: float) -> _Pass:
        """Wait until every door is open at once; raises when that cannot be in time."""
        monotonic = self._around.monotonic
        while True:
            self._refuse_when_broken()
            while (wait := self._gates.wait(endpoint)) > 0:
                if monotonic() + wait > deadline:
                    raise self._gates.refusal(endpoint)
                await self._around.sleep(wait)
            ticket = await self._pool.take(endpoint.weight, deadline)
            # Doors may have closed while we stood in the queue; from here to the wire nothing
            # is awaited, so what is open now is open then.
            if self._gates.wait(endpoint) == 0 and self._breaker.wait() == 0:
                return _Pass(ticket, self._breaker.enter(), monotonic())
            self._pool.give_back(ticket)

    def _refuse_when_broken(self) -> None:
        wait = self._breaker.wait()
        if wait > 0:
            raise UnavailableError(
                Code.EXCHANGE_UNAVAILABLE,
                "the exchange keeps failing; it is asked again shortly",
                retry_after_s=wait,
            )

    async def _send(
        self,
        endpoint: Endpoint,
        leave: _Pass,
        path: str,
        params: Mapping[str, str],
        deadline: float,
    ) -> tuple[Good | Fault, int]:
        """One request, judged, with everything that keeps count told of it; and its size."""
        size, quota = 0, SILENT
        try:
            within_s = deadline - leave.sent_at
            answer = await self._wire.ask(endpoint.method, path, params, within_s)
            outcome: Good | Fault
            if isinstance(answer, Answer):
                size, quota = len(answer.body), answer.quota
                outcome = await self._aside(size, judge, answer, endpoint)
            else:
                outcome = answer
        except BaseException:  # cancelled: nothing was learned, but the places must come free
            self._pool.settle(leave.ticket, SILENT)
            self._breaker.abandon(leave.probe)
            raise
        self._pool.settle(leave.ticket, quota)
        if isinstance(outcome, Fault) and outcome.remedy is Remedy.POOL:
            self._pool.close(quota)
        self._learn(endpoint, leave, outcome)
        return outcome, size

    def _learn(self, endpoint: Endpoint, leave: _Pass, outcome: Good | Fault) -> None:
        fault = outcome if isinstance(outcome, Fault) else None
        health = fault.health if fault else Health.ALIVE
        if health is Health.ALIVE:
            self._breaker.success(leave.probe)
            self._gates.passed(leave.sent_at)
        elif health is Health.SICK:
            self._breaker.failure(leave.probe)
        else:
            self._breaker.abandon(leave.probe)
        if fault and fault.remedy is Remedy.BAN:
            self._gates.ban(leave.sent_at)
        if fault and fault.remedy is Remedy.ENDPOINT:
            self._gates.close(endpoint)
        if fault and (health is not Health.ALIVE or fault.remedy is Remedy.POOL):
            self._link.failure(fault.error)
        else:
            self._link.success(leave.sent_at)
        seconds = self._around.monotonic() - leave.sent_at
        self._around.on_request(endpoint.path, fault.error.code.value if fault else OK, seconds)

    def _pause(self, fault: Fault, tried: int) -> float | None:
        """Seconds before the next try, None to give up. Closed doors make their own waits."""
        if fault.remedy is Remedy.NONE or tried >= self._limits.tries:
            return None
        if fault.remedy in {Remedy.POOL, Remedy.ENDPOINT, Remedy.BAN}:
            return 0.0
        if fault.remedy is Remedy.SHORT_PAUSE:
            if tried > self._limits.capacity_retries or not self._budget.spend():
                return None
            return capacity_wait_s(self._limits, self._around.dice)
        if not self._budget.spend():
            return None
        limits = self._limits
        return full_jitter_s(
            tried, limits.backoff_first_s, limits.backoff_cap_s, self._around.dice.random()
        )

    def _told(self, fault: Fault, endpoint: Endpoint) -> ServiceError:
        """The fault's error, with the time after which asking again makes sense."""
        if fault.remedy in {Remedy.ENDPOINT, Remedy.BAN} and self._gates.wait(endpoint) > 0:
            return self._gates.refusal(endpoint)
        if fault.remedy is Remedy.POOL:
            return self._pool.refusal()
        return fault.error

    async def _aside(self, size: int, work: Callable[..., T], *arguments: object) -> T:
        """Run pure work on a body of `size` bytes, outside the event loop when it is long."""
        if size > self._limits.thread_bytes:
            return await asyncio.to_thread(work, *arguments)
        return work(*arguments)
