"""A task that hangs is an alert while it hangs, and before it is begun again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import pytest

from app.alerts.domain.facts import SystemFacts
from app.alerts.domain.models import AlertRule
from app.alerts.services.facts import job_facts
from app.alerts.services.service import AlertFilter, AlertService
from app.configuration.domain.model import IntervalSettings
from app.foundation.jobs import Enqueued, Job, JobState
from app.foundation.ports import Jobs
from app.foundation.sql.database import Database
from app.operations.services.health_checks import ComponentState, background_task
from app.portfolio.services.decision_context import DecisionContext
from app.workers.reactions import SILENT_S
from app.workers.schedule import MAX_RUN_S, Tasks, create_schedule, start_tasks
from app.workers.supervisor import Heartbeat, Supervisor
from tests.support.trading_desk import Desk

START = datetime(2026, 11, 21, tzinfo=UTC)


class Watched:
    """The part of the service that this is about: its background tasks."""

    def __init__(self) -> None:
        self.now, self.mono = START, 0.0
        self.supervisor = Supervisor(
            lambda: self.now,
            lambda: iter([0.0]),
            sleep=self.sleep,
            monotonic=lambda: self.mono,
        )

    async def sleep(self, _: float) -> None:
        await asyncio.sleep(0)

    def collect(self, context: DecisionContext) -> SystemFacts:
        tasks = self.supervisor.facts()
        return SystemFacts(jobs=tuple(job_facts(one, context.configuration) for one in tasks))


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_E12_an_alert_names_the_task_that_hangs_and_ends_when_it_goes_on(
    database: Database,
) -> None:
    desk = await Desk(database).open()
    tasks = Watched()
    alerts = AlertService(
        desk.database, desk.alerts.contexts, desk.alerts.idempotency, desk.alerts.new_id, tasks
    )

    async def named() -> list[str]:
        found, _ = await alerts.list(AlertFilter(rule=AlertRule.JOB_LATE))
        return [one.subject for one in found]

    async def hangs(beat: Heartbeat) -> None:
        beat()
        await asyncio.Event().wait()

    tasks.supervisor.start("feed", hangs, lambda: SILENT_S)
    await asyncio.sleep(0)
    tasks.supervisor.check_silence(SILENT_S / 2)
    assert await named() == []
    tasks.supervisor.check_silence(5.0)
    assert await named() == ["feed"]
    tasks.supervisor.check_silence(SILENT_S)
    for _ in range(5):
        await asyncio.sleep(0)
    assert await named() == []  # it has begun again
    await tasks.supervisor.stop()


class AtOnce:
    """Durable runs that end at once."""

    async def enqueue(self, kind: str, payload: Any, *, run_id: str, key: Any = None) -> Enqueued:
        del kind, payload, key
        return Enqueued(run_id, is_new=True)

    async def wait_for_end(self, run_id: str) -> Job:
        return Job(run_id, "", JobState.DONE, START, START, START, 1.0, (), {}, None, None)


async def scheduled(tasks: Watched) -> dict[str, float]:
    """Every job of the schedule has run once and hangs from then on; its interval by its name."""
    has_run = False

    async def run(*_: object) -> None:
        if has_run:  # however long the test takes
            await asyncio.Event().wait()

    work: Any = {one.name: run for one in fields(Tasks)}
    work["is_provisional"] = lambda: False
    jobs = cast("Jobs", AtOnce())  # the part of the port that ticks use
    schedule = [
        replace(one, run=partial(_both, run, one.run))
        for one in create_schedule(
            IntervalSettings, Tasks(**work), jobs, lambda: tasks.now, lambda: tasks.mono
        )
    ]
    start_tasks(tasks.supervisor, schedule, lambda: tasks.mono)
    while any(one.last_success_at is None for one in tasks.supervisor.facts()):
        await asyncio.sleep(0)
    has_run = True
    return {tick.name: tick.interval_s() for tick in schedule}


async def _both(
    first: Callable[[], Awaitable[None]], then: Callable[[], Awaitable[object]]
) -> None:
    await first()
    await then()


def judged_by(desk: Desk, tasks: Watched) -> AlertService:
    return AlertService(
        desk.database, desk.alerts.contexts, desk.alerts.idempotency, desk.alerts.new_id, tasks
    )


async def late(alerts: AlertService) -> set[str]:
    found, _ = await alerts.list(AlertFilter(rule=AlertRule.JOB_LATE))
    return {one.subject for one in found}


def not_up(tasks: Watched) -> set[str]:
    facts = tasks.supervisor.facts()
    return {one.name for one in facts if background_task(one).state is not ComponentState.UP}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("step_h", [1, -1, 24, -24])
async def test_T03_a_step_of_the_clock_makes_no_job_late_and_hides_none_that_is(
    database: Database, step_h: int
) -> None:
    desk, tasks = await Desk(database).open(), Watched()
    alerts = judged_by(desk, tasks)
    every = await scheduled(tasks)
    tasks.now += timedelta(hours=step_h)
    assert (await late(alerts), not_up(tasks)) == (set(), set())
    # These have an interval to be late by; the others are late by their silence.
    silent = {
        "retention",
        "signal_outcomes",
        "daily_digest",
        "score_validation",
        "signals",
        "signal_sources",
    }
    timed = every.keys() - silent
    for intervals, wanted in ((3.0, set()), (3.2, timed)):
        for name, interval_s in every.items():
            tasks.mono = intervals * max(interval_s, 20.0)
            found = name in await late(alerts)
            # The schedule looks for candles more often than they close, and for books in parts.
            if name not in {"candles", "books"}:
                assert found is (name in wanted), (name, intervals)
    await tasks.supervisor.stop()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_job_that_waits_for_its_turn_is_neither_late_nor_silent(
    database: Database,
) -> None:
    """Hourly jobs are quiet for most of an hour; health called them silent, and alerts late."""
    desk, tasks = await Desk(database).open(), Watched()
    alerts = judged_by(desk, tasks)
    for name, interval_s in (await scheduled(tasks)).items():
        await tasks.supervisor.stop()
        tasks.mono = 0.0
        await scheduled(tasks)
        tasks.mono += interval_s
        tasks.supervisor.check_silence(interval_s)
        assert name not in await late(alerts) | not_up(tasks), "its turn has come"
        (fact,) = (one for one in tasks.supervisor.facts() if one.name == name)
        assert fact.limit_s is not None
        tasks.supervisor.check_silence(fact.limit_s - MAX_RUN_S / 2 - interval_s + 1.0)
        assert name in not_up(tasks), "it is about to be ended"
    await tasks.supervisor.stop()
