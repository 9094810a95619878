"""Every rebalance is a run: one at a time, once per tick, written down however it ends."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.foundation.errors import Code, ConflictError, NotFoundError, ServiceError
from app.foundation.idempotency import Command, StoredResponse, TransactionHooks
from app.foundation.sql.database import Database, UnitOfWork
from app.portfolio.domain.rebalance_run import (
    RebalanceRun,
    RebalanceStep,
    RebalanceStepName,
    RebalanceStepState,
    RunState,
)
from app.portfolio.services.rebalance_runs import RebalanceRequest, RebalanceResult, StepRecorder
from app.portfolio.storage.history import HistoryRepository
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

TICK = NOW.replace(minute=0)
LATE = timedelta(seconds=30)


class Key:
    key = "k"
    fingerprint = "f"


KEYED = Command("tester", "request-1", idempotency_key=Key())


def rendered(done: RebalanceResult) -> StoredResponse:
    return StoredResponse(200, {}, f"{done.run_id} {done.version} {done.plan.changes}".encode())


async def rebalanced(desk: Desk, **options: Any) -> RebalanceResult:
    outcome = await desk.rebalancing.rebalance(WHO, **options)
    assert outcome.result is not None
    return outcome.result


async def history_length(desk: Desk) -> int:
    async with desk.database.read() as unit:
        return len(await unit.get(HistoryRepository).all())


async def runs(desk: Desk) -> tuple[RebalanceRun, ...]:
    return await desk.rebalancing.runs.page(None, 50)


async def newest(desk: Desk) -> tuple[RebalanceRun, tuple[RebalanceStep, ...]]:
    return await desk.rebalancing.runs.one((await runs(desk))[0].run_id)


async def test_a_run_is_kept_with_what_it_did_and_how(desk: Desk) -> None:
    await desk.filled()
    desk.later(minutes=5)
    desk.score({SYMBOLS[0]: 0.61})
    done = await rebalanced(desk, reason="tuned", account_balance=Decimal(10_000))
    run, steps = await newest(desk)
    assert (run.run_id, run.state, done.state) == (done.run_id, RunState.DONE, RunState.DONE)
    assert (run.reason, run.actor, run.request_id) == ("tuned", "tester", "request-1")
    assert run.outcome is not None
    assert (run.outcome.version_before, run.outcome.version_after) == (1, 2)
    assert run.outcome.changes == done.plan.changes
    assert run.outcome.turnover_u == done.plan.turnover_u
    assert run.outcome.cost == done.cost
    assert [(step.name, step.state) for step in steps] == [
        (one, RebalanceStepState.DONE) for one in RebalanceStepName
    ]
    assert steps[0].detail == {"version": 1, "board": "board-1"}
    event = (await desk.queries.history(None, 1))[0]
    assert event.payload["run_id"] == run.run_id, "the change names its run"


async def test_a_second_run_right_after_the_first_changes_nothing(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    first = await rebalanced(desk)
    length = await history_length(desk)
    second = await rebalanced(desk)
    assert (second.state, second.plan.changes, second.version) == (
        RunState.UNCHANGED,
        (),
        first.version,
    )
    assert await history_length(desk) == length
    assert [run.state for run in sorted(await runs(desk), key=lambda run: run.run_id)] == [
        RunState.DONE,
        RunState.UNCHANGED,
    ]
    _, steps = await desk.rebalancing.runs.one(second.run_id)
    assert [step.state.value for step in steps] == ["done", "done", "skipped", "skipped"]


async def test_a_dry_run_writes_nothing(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    dry = await rebalanced(desk, dry_run=True)
    assert dry.is_dry_run
    assert await runs(desk) == ()
    with pytest.raises(NotFoundError):
        await desk.rebalancing.runs.one(dry.run_id)


async def test_while_one_is_active_others_hear_which(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    active = await desk.rebalancing.runs.claim(RebalanceRequest(), WHO)
    for _ in range(2):
        with pytest.raises(ConflictError) as caught:
            await rebalanced(desk)
        assert caught.value.code is Code.REBALANCE_IN_PROGRESS
        assert caught.value.facts == {"run_id": active.run_id}
    assert [run.run_id for run in await runs(desk)] == [active.run_id]
    assert (await rebalanced(desk, dry_run=True)).plan.changes, "looking is no run"
    desk.later(seconds=30)
    done = await rebalanced(desk)
    assert done.state is RunState.DONE
    gone, steps = await desk.rebalancing.runs.one(active.run_id)
    assert (gone.state, steps) == (RunState.ABORTED_EXPIRED, ())


async def test_a_run_that_was_given_up_meanwhile_commits_nothing(desk: Desk) -> None:
    """Its process slept; another took its place: what the sleeper does is undone as a whole."""
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    runs_, before = desk.rebalancing.runs, await history_length(desk)
    sleeper = await runs_.claim(RebalanceRequest(), WHO)
    desk.later(seconds=30)
    await runs_.claim(RebalanceRequest(), WHO)
    with pytest.raises(ConflictError) as caught:
        async with desk.database.write() as unit:
            await desk.rebalancing.execute(
                unit, sleeper, RebalanceRequest(), WHO, StepRecorder(runs_.clock)
            )
    assert caught.value.code is Code.REBALANCE_IN_PROGRESS
    assert await history_length(desk) == before
    assert (await desk.portfolio.view()).portfolio.version == 1


async def test_C07_what_is_tightened_while_a_run_is_under_way_holds_for_it(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    runs_, before = desk.rebalancing.runs, await history_length(desk)
    claimed = await runs_.claim(RebalanceRequest(), WHO)
    wide = (await desk.rebalancing.rebalance(WHO, dry_run=True)).result
    assert wide is not None
    assert max(wide.plan.allocation.weights_u.values()) > 11_000_000
    await desk.configuration.put({"max_weight_percentage": 10.5}, "less of each", WHO)
    await desk.controls.switch(False, "stop", WHO)
    with pytest.raises(ConflictError) as caught:
        async with desk.database.write() as unit:
            await desk.rebalancing.execute(
                unit, claimed, RebalanceRequest(), WHO, StepRecorder(runs_.clock)
            )
    assert caught.value.code is Code.TRADING_DISABLED
    await desk.controls.switch(True, "go on", WHO)
    assert await history_length(desk) == before + 3, "settings, off, on: nothing of the run"
    async with desk.database.write() as unit:
        await desk.rebalancing.execute(
            unit, claimed, RebalanceRequest(), WHO, StepRecorder(runs_.clock)
        )
    async with desk.database.read() as unit:
        event = (await unit.get(HistoryRepository).all())[-1]
    members = (await desk.portfolio.view()).portfolio.members
    assert (event.payload["run_id"], event.configuration_version) == (claimed.run_id, 2)
    assert max(one.weight_u for one in members) == 10_500_000


async def test_a_tick_is_carried_out_once_and_told_again(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    asked: Mapping[str, Any] = {
        "scheduled_at": TICK,
        "account_balance": Decimal(10_000),
        "render": rendered,
    }
    first = await desk.rebalancing.rebalance(WHO, **asked)
    assert first.result is not None
    desk.later(minutes=3)
    desk.score({SYMBOLS[0]: 0.30})
    length = await history_length(desk)
    again = await desk.rebalancing.rebalance(WHO, **asked)
    assert (first.is_replay, again.is_replay) == (False, True)
    assert again.answer == first.answer
    assert again.result is not None
    assert again.result.lots == first.result.lots
    assert again.result.facts == first.result.facts
    assert again.result.plan.allocation == first.result.plan.allocation
    assert (again.result.cost, again.result.cash_u) == (first.result.cost, first.result.cash_u)
    assert await history_length(desk) == length
    assert len(await runs(desk)) == 1
    other = await rebalanced(desk, scheduled_at=TICK + timedelta(hours=1))
    assert other.state is RunState.DONE


async def test_a_tick_under_a_new_key_is_the_same_run(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    first = await desk.rebalancing.rebalance(WHO, scheduled_at=TICK, render=rendered)
    for _ in range(2):  # attached the first time, replayed the second
        again = await desk.rebalancing.rebalance(KEYED, scheduled_at=TICK, render=rendered)
        assert again.is_replay
        assert again.answer == first.answer
    assert len(await runs(desk)) == 1


async def test_the_schedule_and_a_caller_share_the_tick(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    desk.later(minutes=2)
    await desk.rebalancing.check(WHO)
    await desk.rebalancing.check(WHO)
    (run,) = await runs(desk)
    assert (run.scheduled_at, run.state, run.reason) == (TICK, RunState.DONE, "scheduled check")
    called = await rebalanced(desk, scheduled_at=TICK)
    assert called.run_id == run.run_id
    desk.later(hours=1)
    desk.score({})
    await desk.rebalancing.check(WHO)
    assert len(await runs(desk)) == 2


async def test_two_executors_of_one_tick_have_one_effect(desk: Desk) -> None:
    """Another goes on with the run of one that died; who comes late hears what became of it."""
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    request = RebalanceRequest("scheduled check", scheduled_at=TICK, is_unattended=True)
    sleeper = await desk.rebalancing.runs.claim(request, WHO)
    with pytest.raises(ConflictError):  # a caller is no executor
        await rebalanced(desk, scheduled_at=TICK)
    await desk.rebalancing.check(WHO, TICK)
    again = await desk.rebalancing.run(request, WHO)
    assert again.result is not None
    (run,) = await runs(desk)
    assert run.run_id == sleeper.run_id == again.result.run_id
    assert run.state is RunState.DONE
    assert (await desk.portfolio.view()).portfolio.version == 2


async def test_a_run_whose_request_was_answered_by_another_stands_in_nobodys_way(
    desk: Desk,
) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})

    async def another_takes_the_key() -> None:
        desk.later(minutes=1)
        await desk.rebalancing.rebalance(KEYED, render=rendered)

    async def nothing(unit: UnitOfWork, done: RebalanceResult) -> None:
        del unit, done

    hooks = TransactionHooks(another_takes_the_key, nothing)
    late = await desk.rebalancing.run(RebalanceRequest(), KEYED, rendered, hooks)
    assert late.is_replay
    assert {run.state for run in await runs(desk)} == {RunState.DONE, RunState.FAILED}
    assert (await desk.portfolio.view()).portfolio.version == 2
    assert (await rebalanced(desk)).state is RunState.UNCHANGED


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_rebalance_for_another_version_leaves_no_run(desk: Desk, keyed: bool) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    who = KEYED if keyed else WHO
    other = Command("tester", "request-1", if_match=7, idempotency_key=who.idempotency_key)
    asked: Mapping[str, Any] = {"scheduled_at": TICK, "render": rendered}
    for _ in range(2):
        with pytest.raises(ServiceError) as caught:
            await desk.rebalancing.rebalance(other, **asked)
        assert caught.value.code is Code.PRECONDITION_FAILED
        assert await runs(desk) == ()
    after = await desk.rebalancing.rebalance(who, **asked)
    assert after.result is not None
    assert after.result.state is RunState.DONE
    assert [one.state for one in await runs(desk)] == [RunState.DONE]


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(
    ("code", "state"),
    [
        (Code.MARKET_DATA_STALE, RunState.ABORTED_STALE),
        (Code.NO_BOARD_YET, RunState.ABORTED_STALE),
        (Code.TRADING_DISABLED, RunState.ABORTED_KILLED),
    ],
)
async def test_D21_a_run_that_is_refused_is_written_down_and_may_be_tried_again(
    desk: Desk, code: Code, state: RunState, keyed: bool
) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    who, board = KEYED if keyed else WHO, desk.boards.board
    match code:
        case Code.MARKET_DATA_STALE:
            desk.stale(*SYMBOLS[:3])
        case Code.NO_BOARD_YET:
            desk.boards.board = None
        case _:
            await desk.controls.switch(False, "holidays", WHO)
    before = (await desk.portfolio.view()).portfolio, await history_length(desk)
    asked: Mapping[str, Any] = {"scheduled_at": TICK, "render": rendered}
    with pytest.raises(ServiceError) as caught:
        await desk.rebalancing.rebalance(who, **asked)
    assert caught.value.code is code
    run, steps = await newest(desk)
    assert (run.state, run.outcome) == (state, None)
    assert run.failure is not None
    assert run.failure.code == code.value
    assert run.failure.detail == caught.value.detail
    assert [(step.name, step.state) for step in steps] == [
        (RebalanceStepName.LOAD, RebalanceStepState.FAILED)
    ]
    assert (await desk.portfolio.view()).portfolio == before[0]
    assert await history_length(desk) == before[1]
    desk.boards.board = board
    for symbol in SYMBOLS[:3]:
        desk.quote(symbol, is_fresh=True)
    await desk.controls.switch(True, "back", WHO)
    desk.later(seconds=1)
    after = await desk.rebalancing.rebalance(KEYED if keyed else WHO, **asked)
    assert after.result is not None
    assert after.result.state is RunState.DONE, "the same tick, tried again"
    assert len(await runs(desk)) == 2


async def test_of_many_at_once_each_is_a_run_or_hears_of_one(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    endings = await asyncio.gather(
        *(desk.rebalancing.rebalance(WHO, scheduled_at=TICK) for _ in range(8)),
        return_exceptions=True,
    )
    (run,) = await runs(desk)
    assert run.state is RunState.DONE
    for ending in endings:
        if isinstance(ending, ConflictError):
            assert ending.facts == {"run_id": run.run_id}
        else:
            assert not isinstance(ending, BaseException)
            assert ending.result is not None
            assert ending.result.run_id == run.run_id
    assert (await desk.portfolio.view()).portfolio.version == 2


_LOCKS = ("INSERT INTO rebalance_runs", "FOR UPDATE", "UPDATE rebalance_runs", "UPDATE event_head")


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_C17_a_rebalance_locks_the_portfolio_then_its_run_and_the_numbers_of_events_last(
    counted: tuple[Database, list[str]],
) -> None:
    # Two that lock in one order cannot wait for each other, however their turns fall.
    database, statements = counted
    desk = await Desk(database).filled(4)
    desk.later(days=2)
    desk.score({SYMBOLS[0]: 0.3})
    statements.clear()
    assert (await rebalanced(desk)).plan.changes
    await desk.portfolio.replace(SYMBOLS[1], SYMBOLS[9], "better", WHO)
    taken = [lock for sql in statements for lock in _LOCKS if lock in sql]
    claimed, portfolio, run, numbers = _LOCKS
    # The claim is a transaction of its own, so that others see it; then the run is begun and ended.
    assert taken == [claimed, portfolio, run, run, numbers, portfolio, numbers]
