"""Routes of stored rebalance runs and their steps."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from fastapi import Query
from pydantic import Field

from app.foundation.errors import Code
from app.foundation.http.dependencies import CursorsDep, Provided
from app.foundation.http.errors import problems
from app.foundation.http.pagination import Page, cut, moment_and_id
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CursorText,
    IdPath,
    Json,
    Limit,
    Out,
    Percent,
    Share,
    UtcTime,
    finite,
    percent,
)
from app.portfolio.api.schemas import RebalanceErrorOut
from app.portfolio.domain.rebalance_plan import WeightChange
from app.portfolio.domain.rebalance_run import (
    RebalanceRun,
    RebalanceStep,
    RebalanceStepName,
    RebalanceStepState,
    RunState,
)
from app.portfolio.services.rebalancing import Rebalancing

router = api_router("portfolio", "/portfolio/rebalances")


class RebalanceRunOut(Out):
    """One run; figures are null while it is active and where it came to nothing."""

    run_id: str
    state: RunState
    reason: str
    method: str | None = Field(description="Null: the configured one.")
    scheduled_at: UtcTime | None = Field(description="The tick that it is of.")
    actor: str
    request_id: str
    owner: str = Field(description="The process that carried it out.")
    requested_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None
    version_before: int | None
    version_after: int | None
    triggers: list[str] | None = Field(examples=[["drift"]])
    total_changes: int | None
    turnover: float | None = Field(description="Sum of the absolute changes, percentage points.")
    estimated_cost: Share | None = Field(description="Of equity; null where it is not known.")
    error: RebalanceErrorOut | None = Field(description="Why it came to nothing.")

    @classmethod
    def of(cls, run: RebalanceRun) -> Self:
        return cls(**run_fields(run))


class RebalanceChangeOut(Out):
    symbol: str
    old: Percent
    new: Percent
    change: float = Field(description="Percentage points.")
    action: str = Field(examples=["enter", "exit", "increase", "decrease"])
    reason: str

    @classmethod
    def of(cls, change: WeightChange) -> Self:
        return cls(
            symbol=change.symbol,
            old=percent(change.old_u),
            new=percent(change.new_u),
            change=percent(change.change_u),
            action=change.action,
            reason=change.reason,
        )


class RebalanceStepOut(Out):
    """One step; of a run whose process died none is known."""

    name: RebalanceStepName
    state: RebalanceStepState
    started_at: UtcTime
    finished_at: UtcTime
    detail: Json

    @classmethod
    def of(cls, step: RebalanceStep) -> Self:
        return cls(
            name=step.name,
            state=step.state,
            started_at=step.started_at,
            finished_at=step.finished_at,
            detail=dict(step.detail),
        )


class RebalanceRunDetailOut(RebalanceRunOut):
    """One run with what it changed and how it went."""

    changes: list[RebalanceChangeOut] | None
    steps: list[RebalanceStepOut]

    @classmethod
    def from_run(cls, run: RebalanceRun, steps: Sequence[RebalanceStep]) -> Self:
        outcome = run.outcome
        return cls(
            **run_fields(run),
            changes=None
            if outcome is None
            else [RebalanceChangeOut.of(one) for one in outcome.changes],
            steps=[RebalanceStepOut.of(step) for step in steps],
        )


def run_fields(run: RebalanceRun) -> dict[str, Any]:
    """The wire fields of a run."""
    outcome = run.outcome
    return {
        "run_id": run.run_id,
        "state": run.state,
        "reason": run.reason,
        "method": run.method,
        "scheduled_at": run.scheduled_at,
        "actor": run.actor,
        "request_id": run.request_id,
        "owner": run.owner,
        "requested_at": run.requested_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "version_before": None if outcome is None else outcome.version_before,
        "version_after": None if outcome is None else outcome.version_after,
        "triggers": None if outcome is None else [one.value for one in outcome.triggers],
        "total_changes": None if outcome is None else len(outcome.changes),
        "turnover": None if outcome is None else percent(outcome.turnover_u),
        "estimated_cost": None if outcome is None else finite(outcome.cost),
        "error": None if run.failure is None else RebalanceErrorOut.of(run.failure),
    }


@router.get("", summary="Rebalance runs")
async def rebalances(
    rebalancing: Provided[Rebalancing],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
    state: Annotated[RunState | None, Query(description="Only runs in this state.")] = None,
) -> Page[RebalanceRunOut]:
    """Newest first: who asked when and why, how it ended, what it changed and cost.

    A dry run is no run. `planned` and `running` are the active states, of which there is one run at
    most; one whose process died gives way after 30 seconds.
    """
    chosen = {"state": None if state is None else state.value}
    start = cursors.decode("rebalances", chosen, cursor)
    before = moment_and_id(start)
    runs = await rebalancing.runs.page(before, limit + 1, state)
    page, last = cut(runs, limit, lambda run: (run.requested_at.isoformat(), run.run_id))
    return Page(
        items=[RebalanceRunOut.of(run) for run in page],
        next_cursor=None if last is None else cursors.encode("rebalances", chosen, last),
    )


@router.get("/{run_id}", summary="One rebalance run", responses=problems(Code.NOT_FOUND))
async def rebalance_run(
    rebalancing: Provided[Rebalancing], run_id: IdPath
) -> RebalanceRunDetailOut:
    """One run with its changes and its steps: load, plan, commit, announce."""
    return RebalanceRunDetailOut.from_run(*await rebalancing.runs.one(run_id))
