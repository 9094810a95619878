"""Retention deletes ended records by the settings, and nothing that a decision used."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import pytest
from sqlalchemy import select, text

from app.alerts.storage.notifications import NotificationRepository
from app.foundation.decision_log import DecisionInputs
from app.foundation.errors import NotFoundError
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.job_service import JobEventPublisher, JobService
from app.foundation.metrics import Metrics
from app.foundation.ports import Jobs
from app.foundation.sql.database import Database
from app.foundation.sql.schema import metadata
from app.operations.services.event_stream import EventStream
from app.operations.services.retention import SWEEPS, Retention, find_decided_boards
from app.performance.services.service import ResultSubmission
from app.scoring.services.board_retention import BoardRetention
from app.security.services.audit import SecurityAudit
from app.signals.domain.models import SignalState
from tests.alerts.services.test_notifications import Office, change
from tests.conftest import MakeDatabase
from tests.support.signal_fixtures import BEST, claim, informed
from tests.support.trading_desk import SYMBOLS, WHO, Desk, settings

KEPT = {
    "portfolio_history",
    "portfolio_members",
    "configuration_versions",
    "trades",
    "rebalance_runs",
    "rebalance_run_steps",
}


@dataclass
class Ended:
    """Jobs that ended at these times."""

    at: list[datetime] = field(default_factory=list)

    async def forget(self, finished_before: datetime) -> int:
        old = sum(one < finished_before for one in self.at[:2])  # no more in one go
        self.at = self.at[old:]
        return old


def _service(desk: Desk, office: Office, jobs: Ended) -> Retention:
    def clock() -> datetime:
        return desk.now

    return Retention(
        desk.configuration,
        IdempotentExecutor(desk.database, clock),
        EventStream(desk.database, clock, Metrics(), lambda _: None),
        office.notifications,
        desk.alerts,
        JobService(cast("Jobs", jobs), clock, lambda: "id", JobEventPublisher(desk.database)),
        desk.rebalancing.runs,
        desk.signals,
        BoardRetention(desk.database, clock, find_decided_boards),
        SecurityAudit(desk.database, clock),
        DecisionInputs(desk.database, clock),
    )


async def _everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    async with database.read() as unit:
        return {
            table.name: sorted(
                tuple(map(str, row)) for row in await unit.connection.execute(select(table))
            )
            for table in metadata.sorted_tables
        }


async def test_B18_only_old_ended_records_are_deleted(database: Database) -> None:
    desk = await Desk(database).filled(3)
    zero = Decimal(0)
    paid = ResultSubmission(
        trade_id="t1",
        pnl=Decimal(7),
        fees=zero,
        funding=zero,
        currency="USDT",
        occurred_at=desk.now,
    )
    await desk.performance.book(SYMBOLS[1], paid, "closed", WHO)
    await desk.rebalancing.rebalance(WHO)
    office = Office(database)
    await office.channel("desk", "http://127.0.0.1:1/hook")
    await office.publish(change(1), change(2))
    await office.work()
    log = await office.notifications.log(None, 10)
    async with database.write() as unit:  # one has arrived, one is still to be told
        await unit.get(NotificationRepository).delivered([(log[0], desk.now)])
    desk.score({"C00USDT": 0.1, "C01USDT": 0.1})
    await desk.alerts.evaluate()
    desk.score({"C00USDT": 0.9, "C01USDT": 0.1})
    desk.later(minutes=20)
    await desk.alerts.evaluate()
    before = await _everything(database)
    assert all(before[name] for name in KEPT)
    states = [row[5] for row in before["alerts"]]
    assert {"open", "resolved"} <= set(states)
    began = desk.now
    jobs = Ended([began] * 5 + [began + timedelta(days=20)])
    service = _service(desk, office, jobs)

    desk.later(days=10)
    office.now = desk.now
    await desk.configuration.put({"retention": {"alerts_days": 9}}, "less", WHO)
    assert await service.sweep("alerts") == states.count("resolved")
    assert await service.sweep("notifications") == 0, "thirty days are not over"
    assert await service.sweep("jobs") == 0
    desk.later(days=25)
    office.now = desk.now
    assert await service.sweep("notifications") == 1
    assert await service.sweep("jobs") == 6
    left = {name: await service.sweep(name) for name in SWEEPS}
    changed = 2  # events of the settings that were changed here
    assert left == dict.fromkeys(SWEEPS, 0) | {"events": len(before["events"]) + changed}
    decided = len(before["decision_inputs"])
    assert decided > 1, "the inputs of the rebalance and of the alerts"
    await desk.configuration.put({"retention": {"decision_inputs_days": 34}}, "less", WHO)
    assert await service.sweep("decision_inputs") == decided
    after = await _everything(database)
    assert [row[5] for row in after["alerts"]] == [one for one in states if one != "resolved"]
    assert {row[9] for row in after["notifications"]} == {"pending"}
    assert len(after["notifications"]) == len(before["notifications"]) - 1
    for name in KEPT:
        assert set(before[name]) <= set(after[name]), name


def test_three_months_of_alerts_two_weeks_of_jobs_a_month_of_notifications() -> None:
    rules = settings().retention
    assert (rules.alerts_days, rules.jobs_days, rules.notifications_days) == (90, 14, 30)
    assert (rules.rebalance_runs_days, rules.signals_days) == (365, 30)
    assert rules.security_events_days == 400


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_signals_go_a_month_after_they_were_refused_and_approved_ones_stay(
    database: Database,
) -> None:
    desk = await Desk(database).open()
    informed(desk)
    weak = await desk.signals.submit(claim(strength=0.1), WHO)
    good = await desk.signals.submit(claim(), WHO)
    service = _service(desk, Office(database), Ended())
    desk.later(days=29)
    assert await service.sweep("signals") == 0
    desk.later(days=2)
    assert await service.sweep("signals") == 1
    assert await service.sweep("signals") == 0
    assert weak.result is not None
    assert good.result is not None
    with pytest.raises(NotFoundError):
        await desk.signals.get(weak.result.evaluated.signal.signal_id)
    kept = await desk.signals.get(good.result.evaluated.signal.signal_id)
    assert kept.signal.state is SignalState.APPROVED


async def test_beyond_a_number_the_oldest_rejected_signals_go_and_nothing_that_is_needed(
    database: Database,
) -> None:
    desk = await Desk(database).open()

    async def sent(**changed: float) -> str:
        desk.later(minutes=1)
        done = (await desk.signals.submit(claim(BEST, **changed), WHO)).result
        assert done is not None
        return done.evaluated.signal.signal_id

    async def left(signal_ids: list[str]) -> list[str]:
        async with database.read() as unit:
            found = await unit.connection.execute(text("SELECT signal_id FROM signals"))
            stored = {row[0] for row in found}
        return [one for one in signal_ids if one in stored]

    expired = await sent()  # no board evaluates it
    desk.later(days=2)
    assert await desk.signals.delete_old(timedelta(days=30)) == 0
    informed(desk, drawdown=-0.9)
    judged = await sent()
    informed(desk)
    approved = await sent()
    weak = [await sent(strength=0.0, confidence=0.0) for _ in range(4)]
    everything = [expired, judged, approved, *weak]
    states = [(await desk.signals.get(one)).signal.state.value for one in everything]
    assert states == ["expired", "rejected", "approved", *["rejected"] * 4]
    assert desk.signals.max_ended == 100_000
    assert await _service(desk, Office(database), Ended()).sweep("signals") == 0
    for most, number, stay in (
        (3, 3, [expired, judged, approved, weak[3]]),  # one with an open outcome stays
        (1, 2, [judged, approved]),
        (0, 0, [judged, approved]),
    ):
        desk.signals = replace(desk.signals, max_ended=most, deleted_at_once=2)
        service = _service(desk, Office(database), Ended())
        assert await service.sweep("signals") == number
        assert await left(everything) == stay


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_rebalance_runs_are_deleted_after_a_year_and_history_stays(
    database: Database,
) -> None:
    desk = await Desk(database).filled(3)
    desk.quote("C00USDT", mark=Decimal("20.0"))
    old = await desk.rebalancing.rebalance(WHO)
    assert old.result is not None
    history = (await _everything(database))["portfolio_history"]
    desk.later(days=200)
    desk.score({})
    service = _service(desk, Office(database), Ended())
    assert await service.sweep("rebalance_runs") == 0
    await desk.configuration.put({"retention": {"rebalance_runs_days": 100}}, "less", WHO)
    assert await service.sweep("rebalance_runs") == 1
    with pytest.raises(NotFoundError):
        await desk.rebalancing.runs.one(old.result.run_id)
    after = await _everything(database)
    assert not after["rebalance_runs"]
    assert not after["rebalance_run_steps"]
    assert set(history) <= set(after["portfolio_history"])


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_B07_retention_may_run_for_a_minute(
    database_url: str, make_database: MakeDatabase
) -> None:
    """With the time limit of a request, a large table would never be cleared."""
    database = make_database(database_url, statement_timeout_s=30.0)
    await database.open()
    desk, office = await Desk(database).open(), Office(database)
    service = _service(desk, office, Ended())
    tables = ("alerts", "events", "idempotency_keys", "notifications", "rebalance_runs", "signals")
    watch = (
        "CREATE FUNCTION impatient() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF current_setting('statement_timeout') <> '1min' THEN"
        " RAISE EXCEPTION 'too little time: %', TG_TABLE_NAME; END IF; RETURN NULL; END $$"
    )
    limits = [
        f"CREATE TRIGGER impatient BEFORE DELETE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION impatient()"
        for table in tables
    ]
    async with database.write() as unit:
        for statement in (watch, *limits):
            await unit.connection.execute(text(statement))
    for name in SWEEPS:
        assert await service.sweep(name) == 0
    await database.close()
