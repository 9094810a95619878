"""Rebalance runs on real databases: one claim, one end, and what is kept reads back the same."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.foundation.errors import Code, ConflictError
from app.foundation.sql.database import Database
from app.portfolio.domain.rebalance_plan import Trigger, WeightChange
from app.portfolio.domain.rebalance_run import (
    LEASE,
    RebalanceOutcome,
    RebalanceRun,
    RebalanceStep,
    RebalanceStepName,
    RebalanceStepState,
    RunFailure,
    RunState,
)
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from app.portfolio.storage.tables import rebalance_runs

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
OUTCOME = RebalanceOutcome(
    version_before=1,
    version_after=2,
    triggers=(Trigger.DRIFT, Trigger.RISK),
    changes=(WeightChange("BTCUSDT", 20_000_000, 15_000_001, "decrease", "its score fell"),),
    turnover_u=4_999_999,
    cost=0.1 + 0.2,
    details={"facts": {"as_of": None}, "errors": {"BTCUSDT": -1e-17}},
)
STEPS = (
    RebalanceStep(
        RebalanceStepName.LOAD,
        RebalanceStepState.DONE,
        AT,
        AT + timedelta(microseconds=1),
        {"version": 1},
    ),
    RebalanceStep(RebalanceStepName.PLAN, RebalanceStepState.FAILED, AT, AT, {"code": "x"}),
)


def run(number: int, **changed: object) -> RebalanceRun:
    plain = RebalanceRun(
        run_id=f"run-{number:02}",
        state=RunState.PLANNED,
        reason="requested",
        method="equal",
        scheduled_at=None,
        actor="tester",
        request_id="request-1",
        key="key",
        owner="here",
        requested_at=AT,
        lease_until=AT + LEASE,
    )
    return replace(plain, **changed)  # type: ignore[arg-type]  # as the test says


async def claimed(database: Database, wanted: RebalanceRun, now: datetime = AT) -> RebalanceRun:
    async with database.write() as unit:
        return await unit.get(RebalanceRunRepository).claim(wanted, now)


async def closed(database: Database, ended: RebalanceRun) -> bool:
    async with database.write() as unit:
        return await unit.get(RebalanceRunRepository).close(ended, STEPS)


async def stored(database: Database, run_id: str) -> RebalanceRun | None:
    async with database.read() as unit:
        return await unit.get(RebalanceRunRepository).one(run_id)


async def test_what_is_kept_reads_back_the_same(database: Database) -> None:
    wanted = run(1, scheduled_at=AT - timedelta(microseconds=7))
    assert await claimed(database, wanted) == wanted
    assert await stored(database, "run-01") == wanted
    running = wanted.to(RunState.RUNNING, AT)
    async with database.write() as unit:
        assert await unit.get(RebalanceRunRepository).start(running)
        assert not await unit.get(RebalanceRunRepository).start(running), "it can be started once"
    assert await stored(database, "run-01") == running
    ended = running.ended(OUTCOME, RunState.DONE, AT + timedelta(seconds=1))
    assert await closed(database, ended)
    assert await stored(database, "run-01") == ended
    async with database.read() as unit:
        assert await unit.get(RebalanceRunRepository).steps("run-01") == STEPS
        assert await unit.get(RebalanceRunRepository).active() is None
        assert await unit.get(RebalanceRunRepository).one("run-99") is None


async def test_R1_there_is_one_active_run(database: Database) -> None:
    first = await claimed(database, run(1))
    assert await claimed(database, run(2)) == first
    async with database.read() as unit:
        assert await unit.get(RebalanceRunRepository).active() == first
        assert await unit.get(RebalanceRunRepository).one("run-02") is None
    await closed(database, first.failed(RunFailure("x", "y"), AT))
    assert (await claimed(database, run(2))).run_id == "run-02"


async def test_R1_the_database_itself_refuses_a_second_active_run(database: Database) -> None:
    await claimed(database, run(1))
    copy = {"run_id": "run-02", "portfolio_id": "main", "state": "running", "reason": "x"}
    copy |= {"actor": "x", "request_id": "x", "owner": "x"}
    times = {"requested_at": AT, "lease_until": AT}
    with pytest.raises(ConflictError) as caught:
        async with database.write() as unit:
            await unit.connection.execute(rebalance_runs.insert(), {**copy, **times})
    assert caught.value.code is Code.REBALANCE_IN_PROGRESS


async def test_R1_of_many_claims_at_once_one_wins(database: Database) -> None:
    found = await asyncio.gather(*(claimed(database, run(number)) for number in range(8)))
    assert len({one.run_id for one in found}) == 1


async def test_R2_what_has_ended_stays_as_it_is(database: Database) -> None:
    first = await claimed(database, run(1))
    done = first.to(RunState.RUNNING, AT).ended(OUTCOME, RunState.DONE, AT)
    assert await closed(database, done)
    assert not await closed(database, first.failed(RunFailure("x", "y"), AT))
    assert await stored(database, "run-01") == done


async def test_a_run_that_has_lapsed_gives_way(database: Database) -> None:
    first = await claimed(database, run(1))
    late = AT + LEASE
    assert await claimed(database, run(2), late - timedelta(seconds=1)) == first
    second = run(2, requested_at=late, lease_until=late + LEASE)
    assert await claimed(database, second, late) == second
    gone = await stored(database, "run-01")
    assert gone is not None
    assert (gone.state, gone.finished_at) == (RunState.ABORTED_EXPIRED, late)
    async with database.write() as unit:
        assert not await unit.get(RebalanceRunRepository).start(first.to(RunState.RUNNING, late))


async def test_a_tick_has_one_run_unless_it_came_to_nothing(database: Database) -> None:
    tick = AT + timedelta(hours=1)
    first = await claimed(database, run(1, scheduled_at=tick))
    await closed(database, first.failed(RunFailure("market_data_stale", "y"), AT))
    second = await claimed(database, run(2, scheduled_at=tick))
    assert second.run_id == "run-02", "the first came to nothing"
    done = second.to(RunState.RUNNING, AT).ended(OUTCOME, RunState.UNCHANGED, AT)
    await closed(database, done)
    assert await claimed(database, run(3, scheduled_at=tick)) == done
    other = await claimed(database, run(4, scheduled_at=tick + timedelta(hours=1)))
    assert other.run_id == "run-04"


async def test_pages_are_newest_first_and_complete(database: Database) -> None:
    for number in range(7):
        one = run(number, requested_at=AT + timedelta(seconds=number // 2))
        await claimed(database, one)
        state = RunState.UNCHANGED if number % 3 else RunState.DONE
        await closed(database, one.to(RunState.RUNNING, AT).ended(OUTCOME, state, AT))
    seen: list[str] = []
    before = None
    async with database.read() as unit:
        while page := await unit.get(RebalanceRunRepository).page(before, 2):
            seen += [one.run_id for one in page]
            before = (page[-1].requested_at, page[-1].run_id)
        done = await unit.get(RebalanceRunRepository).page(None, 9, RunState.DONE)
    assert seen == [f"run-{number:02}" for number in reversed(range(7))]
    assert [one.run_id for one in done] == ["run-06", "run-03", "run-00"]
