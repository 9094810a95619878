"""One run for all who ask at the same time, begun after each of them has asked."""

import asyncio

import pytest

from app.alerts.domain.facts import SystemFacts
from app.alerts.services.facts import UnknownSystem
from app.alerts.services.service import AlertService
from app.foundation.concurrency import SingleFlight
from app.foundation.errors import Code, UnavailableError
from app.portfolio.services.decision_context import DecisionContext
from tests.support.trading_desk import Desk


async def test_a_call_during_a_run_gets_a_later_run() -> None:
    flight: SingleFlight[int] = SingleFlight()
    runs: list[int] = []
    going = asyncio.Event()

    async def work() -> int:
        number = len(runs) + 1
        runs.append(number)
        await going.wait()
        return number

    first = asyncio.ensure_future(flight(work))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(flight(work)) for _ in range(5)]
    await asyncio.sleep(0)
    going.set()
    assert await first == 1
    assert await asyncio.gather(*others) == [2] * 5
    assert runs == [1, 2]
    assert await flight(work) == 3


async def test_a_failed_run_fails_its_waiters_and_no_later_call() -> None:
    flight: SingleFlight[int] = SingleFlight()
    calls: list[int] = []

    async def fail() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away", retry_after_s=1)

    found = await asyncio.gather(*(flight(fail) for _ in range(8)), return_exceptions=True)
    assert all(isinstance(one, UnavailableError) for one in found)
    assert len(calls) == 2

    async def succeed() -> int:
        return 7

    assert await flight(succeed) == 7


async def test_a_cancelled_run_restarts_for_its_waiters() -> None:
    flight: SingleFlight[int] = SingleFlight()

    async def forever() -> int:
        await asyncio.Event().wait()
        return 1

    async def work() -> int:
        return 2

    first = asyncio.ensure_future(flight(forever))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(flight(work))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 2
    with pytest.raises(asyncio.CancelledError):
        await first


class Looks:
    """A system that counts how often it is looked at."""

    def __init__(self) -> None:
        self.count = 0

    def collect(self, context: DecisionContext) -> SystemFacts:
        self.count += 1
        return UnknownSystem().collect(context)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_simultaneous_alert_requests_share_one_evaluation(desk: Desk) -> None:
    await desk.filled(2)
    system, idempotency = Looks(), desk.alerts.idempotency
    ids = (f"alert-{number}" for number in range(1000))
    alerts = AlertService(
        desk.database, desk.alerts.contexts, idempotency, lambda: next(ids), system
    )
    await alerts.evaluate()
    system.count = 0
    answers = await asyncio.gather(*(alerts.evaluate() for _ in range(20)))
    assert system.count == 2
    assert all(active == answers[0][0] for active, _ in answers)
    await alerts.evaluate()
    assert system.count == 3
