"""Processes whose clocks differ agree on when something has run out: by the database's (T04)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.alerts.domain.notifications import DeliveryState
from app.alerts.services.delivery import NotificationDispatcher
from app.container import assembly
from app.foundation.clock import database_time, shared_clock
from app.foundation.errors import Code, ConflictError
from app.foundation.idempotency import Command, IdempotentExecutor, StoredResponse
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.foundation.sql.idempotency import ClaimOutcome
from app.operations.services.event_stream import EventStream
from app.portfolio.domain.events import PlanCreated
from app.portfolio.domain.rebalance_run import RunState
from app.portfolio.services.membership import PortfolioService
from app.portfolio.services.rebalance_runs import RebalanceRequest, RebalanceRuns
from app.portfolio.services.views import MemberView
from tests.alerts.services.test_notifications import Office, Receiver, change
from tests.support.service_in_process import settings_for
from tests.support.trading_desk import SYMBOLS, WHO, Desk

# A file has one process; only PostgreSQL is shared.
pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
APART = timedelta(days=3)  # longer than any lock, lease or answer is kept


class Key:
    key = "k"
    fingerprint = "f"


KEYED = Command("tester", "request", idempotency_key=Key())


def rendered(view: MemberView) -> StoredResponse:
    return StoredResponse(201, {}, view.member.symbol.encode())


def portfolio(desk: Desk, ahead: timedelta) -> PortfolioService:
    """Of a process whose clock is so far ahead."""
    return replace(
        desk.portfolio,
        idempotency=IdempotentExecutor(desk.database, lambda: desk.now + ahead, database_time),
    )


async def aged(database: Database, table: str, column: str) -> None:
    """By the database's clock a time of every row is just over."""
    over = f"UPDATE {table} SET {column} = clock_timestamp() - interval '1 second'"  # noqa: S608  # names of ours
    async with database.write() as unit:
        await unit.connection.execute(text(over))


async def test_T04_a_claimed_key_and_a_kept_answer_end_by_the_databases_clock(desk: Desk) -> None:
    await desk.filled(3)
    assert shared_clock(desk.database) is database_time, "so the service is put together"
    slow, fast = portfolio(desk, -APART), portfolio(desk, APART)
    async with desk.database.write() as unit:
        claim = await slow.idempotency._claim(unit, "tester", Key())
    assert claim.outcome is ClaimOutcome.CLAIMED
    for other in (slow, fast):
        with pytest.raises(ConflictError) as caught:
            await other.add(SYMBOLS[9], "once", KEYED, rendered)
        assert caught.value.code is Code.IDEMPOTENCY_IN_PROGRESS
    await aged(desk.database, "idempotency_keys", "locked_until")
    done = await slow.add(SYMBOLS[9], "once", KEYED, rendered)
    assert not done.is_replay
    assert await fast.idempotency.forget_old() == 0, "it was given a moment ago"
    assert (await fast.add(SYMBOLS[9], "once", KEYED, rendered)).answer == done.answer


async def test_T04_a_run_gives_way_by_the_databases_clock(desk: Desk) -> None:
    await desk.filled(3)

    def runs(name: str, ahead: timedelta) -> RebalanceRuns:
        ids = iter(f"00000000-0000-4000-8000-{name:>012}" for _ in range(1))
        return RebalanceRuns(
            desk.database, lambda: desk.now + ahead, lambda: next(ids), name, database_time
        )

    held = await runs("1", -APART).claim(RebalanceRequest(), WHO)
    with pytest.raises(ConflictError) as caught:
        await runs("2", APART).claim(RebalanceRequest(), WHO)
    assert caught.value.facts == {"run_id": held.run_id}
    with pytest.raises(ConflictError) as caught:
        await portfolio(desk, APART).remove(SYMBOLS[0], "no longer wanted", WHO)
    assert caught.value.code is Code.REBALANCE_IN_PROGRESS
    await aged(desk.database, "rebalance_runs", "lease_until")
    await portfolio(desk, -APART).remove(SYMBOLS[0], "nobody is at it any more", WHO)
    after = runs("3", -APART)
    assert (await after.claim(RebalanceRequest(), WHO)).owner == "3"
    former, _ = await after.one(held.run_id)
    assert former.state is RunState.ABORTED_EXPIRED


async def test_T04_a_notice_is_due_by_the_databases_clock(database: Database) -> None:
    office = Office(database)
    slow, fast = office.another(), office.another()
    slow.clock, fast.clock = lambda: office.now - APART, lambda: office.now + APART
    slow.shared = fast.shared = database_time
    await office.channel("desk", "http://127.0.0.1:9/nobody-listens")
    await office.publish(change(1))
    for dispatcher in (slow, fast, slow, fast):
        await office.work(dispatcher)
    (failed,) = await office.notifications.log(None, 9)
    assert (failed.state, failed.attempts) == (DeliveryState.PENDING, 1), "the next try is not due"
    await aged(database, "notifications", "next_attempt_at")
    await office.work(slow)
    (failed,) = await office.notifications.log(None, 9)
    assert failed.attempts == 2


async def test_T04_what_was_delivered_is_stamped_and_dropped_by_the_databases_clock(
    database: Database,
) -> None:
    office, receiver = Office(database), Receiver()
    dispatchers = [office.another(), office.another()]
    for dispatcher, ahead in zip(dispatchers, (-APART, APART), strict=True):
        dispatcher.clock, dispatcher.shared = lambda by=ahead: office.now + by, database_time  # type: ignore[misc]  # bound now
    async with database.read() as unit:
        at = await database_time(unit)
    office.now = at
    async with receiver.listening() as url:
        await office.channel("desk", url)
        for number, dispatcher in enumerate(dispatchers):
            await office.publish(change(number))
            await office.work(dispatcher)
    told = await office.notifications.log(None, 9)
    assert len(told) == len(receiver.ids) == 2
    for one in told:
        assert one.delivered_at is not None
        assert abs(one.delivered_at - at) < APART / 2, "not by the clock of who delivered it"
    fast = replace(
        office.notifications,
        idempotency=IdempotentExecutor(database, lambda: at + APART, database_time),
    )
    assert await fast.delete_old(APART / 2) == 0, "it was told a moment ago"
    stream = EventStream(database, lambda: at + APART, Metrics(), shared=database_time)
    async with database.write() as unit:
        unit.publish_after_commit(PlanCreated("run", 1, 0, at))
    async with database.read() as unit:
        head = await unit.get(EventRepository).head()
    await stream.forget_old()
    async with database.read() as unit:
        (kept,) = await unit.get(EventRepository).after(head - 1, 9)
    assert kept.occurred_at == at


async def test_T04_a_service_is_put_together_with_the_databases_clock(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[NotificationDispatcher] = []

    def dispatcher(*given: Any, **named: Any) -> NotificationDispatcher:
        made.append(NotificationDispatcher(*given, **named))
        return made[-1]

    monkeypatch.setattr(assembly, "NotificationDispatcher", dispatcher)
    settings = settings_for("http://127.0.0.1:9", database_url, background=False)
    async with assembly.assemble(settings, Metrics()) as services:
        service = services.my_symbols
        users: tuple[Any, ...] = (
            service.portfolio.idempotency,
            service.notifications.idempotency,
            service.rebalancing.runs,
            service.stream, *made,
        )  # fmt: skip
        assert [one.shared for one in users] == [database_time] * 5
