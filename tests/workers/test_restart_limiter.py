"""A task that only ever crashes is not begun again and again: it has failed, and that is said."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from app.alerts.domain.facts import SystemFacts
from app.alerts.domain.models import AlertRule
from app.alerts.services.facts import job_facts
from app.alerts.services.service import AlertFilter, AlertService
from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.database import Database
from app.operations.services.health_checks import TASK_FAILED, ComponentState, background_task
from app.portfolio.services.decision_context import DecisionContext
from app.workers.supervisor import COOLDOWN_S, MAX_CRASHES, Heartbeat, Supervisor
from tests.support.trading_desk import Desk

START = datetime(2026, 11, 21, tzinfo=UTC)


class Bench:
    """A supervisor whose time passes where it sleeps, up to where it is held."""

    def __init__(self) -> None:
        self.now = START  # as the wall clock says
        self.mono = 0.0
        self.pauses: list[float] = []
        self.rested = asyncio.Event()
        self.supervisor = Supervisor(
            lambda: self.now, self.delays, sleep=self.sleep, monotonic=lambda: self.mono
        )
        self.broken: Exception | None = KeyError("a bug")
        self.begun: list[datetime] = []

    @staticmethod
    def delays() -> Iterator[float]:
        return iter([0.5, 1.0, 2.0])

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.mono += seconds

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if seconds == COOLDOWN_S:
            await self.rested.wait()
            self.rested.clear()
        self.passes(seconds)
        await asyncio.sleep(0)

    async def work(self, beat: Heartbeat) -> None:
        self.begun.append(self.now)
        beat()
        if self.broken is not None:
            raise ExceptionGroup("what a group of tasks raises", [self.broken])
        self.passes(120.0)
        beat()
        await asyncio.Event().wait()

    async def until_it_rests(self, times: int = 1) -> None:
        while self.pauses.count(COOLDOWN_S) < times:
            await asyncio.sleep(0)

    def collect(self, context: DecisionContext) -> SystemFacts:
        tasks = self.supervisor.facts()
        return SystemFacts(jobs=tuple(job_facts(one, context.configuration) for one in tasks))


async def test_W15_after_five_restarts_in_a_minute_it_has_failed_and_health_says_so() -> None:
    bench = Bench()
    bench.supervisor.start("stream", bench.work, lambda: 60.0)
    await bench.until_it_rests()
    assert len(bench.begun) == 1 + MAX_CRASHES
    assert bench.begun[-1] - START < timedelta(minutes=1)
    (fact,) = bench.supervisor.facts()
    shown = background_task(fact)
    assert (shown.state, shown.cause) == (ComponentState.DOWN, TASK_FAILED)
    assert shown.detail == "KeyError, after 6 crashes"
    assert shown.next_step is not None
    assert shown.next_step.startswith(f"restarts at {bench.now + timedelta(seconds=COOLDOWN_S):%T}")
    await bench.supervisor.stop()


async def test_W15_after_its_rest_one_crash_is_enough_and_a_minute_without_ends_it() -> None:
    bench = Bench()
    bench.supervisor.start("stream", bench.work, lambda: 60.0)
    await bench.until_it_rests()
    bench.rested.set()
    await bench.until_it_rests(2)
    assert len(bench.begun) == 2 + MAX_CRASHES
    (fact,) = bench.supervisor.facts()
    assert (background_task(fact).state, fact.crashes) == (ComponentState.DOWN, 2 + MAX_CRASHES)
    bench.broken = None
    bench.rested.set()
    while len(bench.begun) < 3 + MAX_CRASHES:
        await asyncio.sleep(0)
    (fact,) = bench.supervisor.facts()
    assert (fact.failed_until, fact.crashes) == (None, 0)
    assert background_task(fact).state is ComponentState.UP
    await bench.supervisor.stop()


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(days=1)], ids=["1h", "1d"])
@pytest.mark.parametrize("way", [-1, 1], ids=["back", "forward"])
async def test_T03_a_step_of_the_clock_neither_prolongs_a_failure_nor_hides_one(
    step: timedelta, way: int
) -> None:
    bench = Bench()
    bench.supervisor.start("stream", bench.work, lambda: 60.0)
    while len(bench.begun) < 3:
        await asyncio.sleep(0)
    bench.now += way * step  # between two crashes of one minute
    await bench.until_it_rests()
    assert len(bench.begun) == 1 + MAX_CRASHES
    bench.now += way * step  # while it rests
    (fact,) = bench.supervisor.facts()
    assert fact.failed_until == bench.now + timedelta(seconds=COOLDOWN_S)
    bench.broken = None
    bench.rested.set()
    while len(bench.begun) < 2 + MAX_CRASHES:
        await asyncio.sleep(0)
    (fact,) = bench.supervisor.facts()
    assert (fact.failed_until, fact.crashes) == (None, 0)
    assert background_task(fact).state is ComponentState.UP
    await bench.supervisor.stop()


async def test_an_outage_spends_nothing_of_the_budget() -> None:
    bench = Bench()
    tries = 0

    async def work(beat: Heartbeat) -> None:
        del beat
        nonlocal tries
        tries += 1
        if tries <= 3 * MAX_CRASHES:
            raise UnavailableError(Code.EXCHANGE_TIMEOUT, "no answer")

    bench.supervisor.start("stream", work, lambda: 60.0)
    await bench.supervisor.wait("stream")
    assert COOLDOWN_S not in bench.pauses


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_W15_a_failed_task_is_an_alert_though_it_began_well_each_time(
    database: Database,
) -> None:
    desk = await Desk(database).open()
    bench = Bench()
    alerts = AlertService(
        desk.database, desk.alerts.contexts, desk.alerts.idempotency, desk.alerts.new_id, bench
    )
    bench.supervisor.start("stream", bench.work, lambda: 60.0)
    await bench.until_it_rests()
    found, _ = await alerts.list(AlertFilter(rule=AlertRule.JOB_FAILING))
    assert [one.subject for one in found] == ["stream"]
    await bench.supervisor.stop()
