"""Runs as values: the ways between states, leases, names of ticks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import product

import pytest

from app.foundation.errors import Code
from app.portfolio.domain.rebalance_run import (
    ACTIVE,
    LEASE,
    NEXT,
    RebalanceOutcome,
    RebalanceRun,
    RunFailure,
    RunState,
    slot,
    state_of,
    workflow_id,
)

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = RebalanceRun(
    run_id="run-1",
    state=RunState.PLANNED,
    reason="requested",
    method=None,
    scheduled_at=None,
    actor="tester",
    request_id="request-1",
    key=None,
    owner="desk",
    requested_at=AT,
    lease_until=AT + LEASE,
)
OUTCOME = RebalanceOutcome(1, 2, (), (), 0, None)


@pytest.mark.parametrize(("before", "after"), list(product(RunState, RunState)))
def test_R2_only_listed_ways_exist_and_what_has_ended_stays(
    before: RunState, after: RunState
) -> None:
    run = replace(RUN, state=before)
    if after in NEXT.get(before, frozenset()):
        moved = run.to(after, AT)
        assert moved.state is after
        assert (moved.finished_at is None) == moved.is_active == (after in ACTIVE)
    else:
        with pytest.raises(ValueError, match=f"{before} cannot become {after}"):
            run.to(after, AT)


def test_R2_from_every_active_state_there_is_an_end_and_none_leads_back() -> None:
    ends = frozenset(RunState) - ACTIVE
    for state in ACTIVE:
        assert NEXT[state] & ends >= {RunState.FAILED, RunState.ABORTED_EXPIRED}
        assert RunState.PLANNED not in NEXT[state]
    assert {after for ways in NEXT.values() for after in ways} == frozenset(RunState) - {
        RunState.PLANNED
    }


def test_a_run_that_starts_has_its_lease_anew() -> None:
    later = AT + timedelta(seconds=20)
    started = RUN.to(RunState.RUNNING, later)
    assert (started.started_at, started.lease_until) == (later, later + LEASE)
    assert not RUN.has_lapsed(AT + LEASE - timedelta(microseconds=1))
    assert RUN.has_lapsed(AT + LEASE)
    ended = started.ended(OUTCOME, RunState.DONE, later)
    assert (ended.outcome, ended.finished_at) == (OUTCOME, later)
    assert not ended.has_lapsed(AT + timedelta(days=1))


def test_how_a_run_ends_says_why() -> None:
    assert state_of(Code.MARKET_DATA_STALE) is RunState.ABORTED_STALE
    assert state_of(Code.NO_BOARD_YET) is RunState.ABORTED_STALE
    assert state_of(Code.TRADING_DISABLED) is RunState.ABORTED_KILLED
    assert state_of(Code.PRECONDITION_FAILED) is RunState.FAILED
    stale = RunFailure(Code.MARKET_DATA_STALE.value, "too old")
    failed = RUN.failed(stale, AT)
    assert (failed.state, failed.failure) == (RunState.ABORTED_STALE, stale)
    expired = RUN.expired(AT + LEASE)
    assert expired.state is RunState.ABORTED_EXPIRED
    assert expired.failure is not None
    assert expired.failure.code == "interrupted"


def test_a_tick_has_one_name_in_every_time_zone() -> None:
    name = "rebalance:main:2026-03-01T12:00:00Z"
    assert workflow_id("main", AT) == name
    assert workflow_id("main", AT.astimezone(timezone(timedelta(hours=5, minutes=30)))) == name
    assert workflow_id("main", AT + timedelta(microseconds=5)) == (
        "rebalance:main:2026-03-01T12:00:00.000005Z"
    )


def test_the_tick_of_a_moment_is_the_last_one_due() -> None:
    assert slot(AT, 3600) == AT
    assert slot(AT + timedelta(minutes=59, seconds=59.9), 3600) == AT
    assert slot(AT + timedelta(hours=1), 3600) == AT + timedelta(hours=1)
    assert slot(AT + timedelta(seconds=100), 90) == AT + timedelta(seconds=90)
