"""A task that hangs is an alert while it hangs, and before it is begun again."""

import asyncio
from datetime import UTC, datetime

import pytest

from app.alerts.domain.facts import SystemFacts
from app.alerts.domain.models import AlertRule
from app.alerts.services.facts import job_facts
from app.alerts.services.service import AlertFilter, AlertService
from app.foundation.sql.database import Database
from app.portfolio.services.decision_context import DecisionContext
from app.workers.reactions import SILENT_S
from app.workers.supervisor import Heartbeat, Supervisor
from tests.support.desk import Desk

START = datetime(2026, 11, 21, tzinfo=UTC)


class Tasks:
    """The part of the service that this is about: its background tasks."""

    def __init__(self) -> None:
        self.supervisor = Supervisor(lambda: START, lambda: iter([0.0]), sleep=self.sleep)

    async def sleep(self, _: float) -> None:
        await asyncio.sleep(0)

    def look(self, context: DecisionContext) -> SystemFacts:
        tasks = self.supervisor.facts()
        return SystemFacts(
            jobs=tuple(job_facts(one, context.configuration, context.at) for one in tasks)
        )


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_E12_an_alert_names_the_task_that_hangs_and_ends_when_it_goes_on(
    database: Database,
) -> None:
    desk = await Desk(database).open()
    tasks = Tasks()
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
