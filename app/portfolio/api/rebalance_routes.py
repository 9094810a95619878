"""Routes of rebalancing: plan, execution, weight optimization and stored runs."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, cast

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from app.configuration.domain.model import WeightingMethod
from app.foundation.errors import Code
from app.foundation.http.dependencies import (
    EXPENSIVE,
    CommandDep,
    CursorsDep,
    Provided,
    by,
)
from app.foundation.http.errors import problems
from app.foundation.http.pagination import Page, cut, moment_and_id
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body, DecimalIn
from app.foundation.http.responses import etag, keep, sent
from app.foundation.http.route_limits import limited_by
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    DECIDES,
    DEFAULT_REASON,
    REPLAYS,
    ChangeRequest,
    CursorText,
    DecisionReplayOut,
    Freshness,
    IdPath,
    Json,
    Limit,
    Lots,
    Money,
    Out,
    Percent,
    PercentPoints,
    Share,
    TimeIn,
    UtcTime,
    example,
    finite,
    percent,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role, RouteLimit
from app.portfolio.api.schemas import RebalanceErrorOut, freshness
from app.portfolio.domain.rebalance_plan import WeightChange
from app.portfolio.domain.rebalance_run import (
    RebalanceRun,
    RebalanceStep,
    RebalanceStepName,
    RebalanceStepState,
    RunState,
)
from app.portfolio.services.decision_replay import DecisionReplayer
from app.portfolio.services.lot_plan import LotPlan, LotRule
from app.portfolio.services.rebalance_runs import RebalanceResult
from app.portfolio.services.rebalancing import Rebalancing
from app.portfolio.services.views import OptimizationResult

router = api_router("portfolio", "/portfolio")


MethodName = Literal["score_tilted", "inverse_volatility", "risk_parity", "hrp", "equal", "fixed"]


class RebalanceIn(ChangeRequest):
    model_config = example({"dry_run": True, "account_balance": "10000"})

    dry_run: bool = Field(False, description="True: the plan is computed and nothing changes.")
    method: MethodName | None = Field(None, description="In place of the configured one.")
    account_balance: Annotated[DecimalIn, Field(gt=0, le=10**12)] | None = Field(
        None, description="Equity in the quote currency; adds lots to the plan."
    )
    scheduled_at: TimeIn | None = Field(
        None, description="The tick of a schedule; each tick is executed once."
    )


class ChangeOut(Out):
    symbol: str
    old: Percent
    new: Percent
    change: PercentPoints = Field(description="Percentage points.")
    action: str = Field(examples=["enter", "exit", "increase", "decrease"])
    reason: str
    lots: Lots | None = Field(description="Of the new weight; null without a balance.")

    @classmethod
    def of(cls, change: WeightChange, lots: int | None) -> Self:
        return cls(
            symbol=change.symbol,
            old=percent(change.old_u),
            new=percent(change.new_u),
            change=percent(change.change_u),
            action=change.action,
            reason=change.reason,
            lots=lots,
        )


class LotsOut(Out):
    """Whole lots of all weights together; an error is realised minus target."""

    lots: dict[str, Lots | None] = Field(description="Null without a price.")
    rounding_errors: dict[str, Share] = Field(description="Fractions of equity.")
    minimum_capital: Money = Field(
        description="Equity from which rounding misses no target by over one percentage point."
    )
    unreachable_targets: list[str] = Field(description="Missed by over one percentage point.")
    specifications: dict[str, str] = Field(
        description="The `specification` of each contract that its lots were counted by; once "
        "`GET /symbols/{symbol}` shows another one they are void."
    )

    @classmethod
    def of(cls, made: LotPlan) -> Self:
        return cls(
            lots=dict(made.lots),
            rounding_errors=dict(made.rounding_errors),
            minimum_capital=Decimal(f"{made.minimum_capital:.12g}"),
            unreachable_targets=list(made.missed),
            specifications=dict(made.specifications),
        )


class LotRuleOut(Out):
    """With known equity, changes below one lot or `sizing.min_notional` are not traded."""

    status: Literal["applied", "not_applicable"] = Field(
        description="`applied`, or `not_applicable` without a known equity."
    )
    balance: Money | None = Field(description="Equity that the rule uses.")
    source: Literal["account_balance", "sizing.reference_balance"] | None = Field(
        description="Origin of the equity; null if it is unknown."
    )
    reason: str | None = Field(description="Reason that the rule is not applicable.")
    held_back: list[str] = Field(description="Members whose due change is too small to trade.")

    @classmethod
    def of(cls, rule: LotRule, held_back: tuple[str, ...]) -> Self:
        applies = rule.balance is not None
        return cls(
            status="applied" if applies else "not_applicable",
            balance=rule.balance,
            source=cast('Literal["account_balance", "sizing.reference_balance"]', rule.source)
            if applies
            else None,
            reason=None
            if applies
            else "neither account_balance nor the setting sizing.reference_balance is given",
            held_back=list(held_back),
        )


class PlanOut(Freshness):
    """The plan; empty without a trigger."""

    run_id: str = Field(description="Of `GET /portfolio/rebalances/{run_id}`.")
    state: RunState | None = Field(description="Final state of the run; null for a dry run.")
    dry_run: bool = Field(description="True: nothing was changed.")
    version: int = Field(description="The version created, or the current one.")
    triggers: list[str] = Field(examples=[["drift"]])
    changes: list[ChangeOut] = Field(description="Weights that change.")
    total_changes: int
    turnover: PercentPoints = Field(description="Sum of the absolute changes, percentage points.")
    estimated_cost: Share | None = Field(
        description="Of equity: taker fee, half the spread and, where stated, the impact; null "
        "where a price is missing or a book is too thin."
    )
    cost_includes_impact: bool = Field(description="True if the cost includes the price impact.")
    lots: LotsOut | None = Field(description="Of all members; null without a balance.")
    lot_rule: LotRuleOut | None = Field(description="Null for runs older than the rule.")
    waits_until: UtcTime | None = Field(
        description="End of the drift wait: `rebalance_min_spacing_s` after the last rebalance. "
        "Only excluded members leave before."
    )
    cash_percentage: Percent
    flags: list[str]
    would_be_refused: RebalanceErrorOut | None = Field(
        description="For a dry run: the problem that a real run would return now."
    )

    @classmethod
    def of(cls, done: RebalanceResult) -> Self:
        plan = done.plan
        return cls(
            run_id=done.run_id,
            state=done.state,
            dry_run=done.is_dry_run,
            version=done.version,
            triggers=[trigger.value for trigger in plan.triggers],
            changes=[
                ChangeOut.of(change, done.lots.lots[change.symbol] if done.lots else None)
                for change in plan.changes
            ],
            total_changes=len(plan.changes),
            turnover=percent(plan.turnover_u),
            estimated_cost=finite(done.cost),
            cost_includes_impact=done.has_impact,
            lots=None if done.lots is None else LotsOut.of(done.lots),
            lot_rule=None
            if done.lot_rule is None
            else LotRuleOut.of(done.lot_rule, plan.held_back),
            waits_until=plan.waits_until,
            cash_percentage=percent(done.cash_u),
            flags=[flag.value for flag in plan.allocation.flags],
            would_be_refused=(
                None
                if done.would_be_refused is None
                else RebalanceErrorOut.of(done.would_be_refused)
            ),
            **freshness(done.facts),
        )


@router.post(
    "/rebalance",
    summary="Bring weights to their targets",
    response_model=PlanOut,
    responses=problems(Code.REBALANCE_IN_PROGRESS, Code.TRADING_DISABLED, *DECIDES, *CHANGES),
)
@requires(Role.TRADER)
async def rebalance_portfolio(
    rebalancing: Provided[Rebalancing], command: CommandDep, body: RebalanceIn | None = None
) -> Response:
    """Triggers are drift beyond the threshold, a broken bound, changed members or the interval.

    Each call is a run, and only one run is active at a time. Meanwhile other calls get 409
    `rebalance_in_progress` with its `run_id` and `Location`. A second call right after the first
    changes nothing; the same `scheduled_at` returns the same run. `dry_run` returns the plan and
    writes nothing; with stale data it reports that in `would_be_refused` instead of failing.
    """
    asked = body or RebalanceIn()

    def render(done: RebalanceResult) -> StoredResponse:
        return keep(PlanOut.of(done), headers={"ETag": etag(done.version)})

    return sent(
        await rebalancing.rebalance(
            by(command, asked.user),
            dry_run=asked.dry_run,
            reason=asked.reason or DEFAULT_REASON,
            account_balance=asked.account_balance,
            method=None if asked.method is None else WeightingMethod(asked.method),
            scheduled_at=asked.scheduled_at,
            render=render,
        )
    )


class OptimizeIn(Body):
    method: MethodName = Field(description="Weighting method.")


class ProposedOut(Out):
    symbol: str
    weight_percentage: Percent = Field(description="Current weight, after price drift.")
    proposed_percentage: Percent = Field(description="Weight by the method.")
    reason: str = Field(description="Bound or rule that set the weight.")


class OptimizedOut(Freshness):
    """Weights by a method. Risk is annualised volatility, null where history is too short."""

    method: WeightingMethod
    version: int = Field(description="Portfolio version.")
    weights: list[ProposedOut] = Field(description="Weights of the members by rank.")
    cash_percentage: Percent
    risk_before: Share | None = Field(description="Annualised volatility at the current weights.")
    risk_after: Share | None = Field(description="Annualised volatility at the proposed weights.")
    flags: list[str]

    @classmethod
    def of(cls, made: OptimizationResult) -> Self:
        return cls(
            method=made.method,
            version=made.version,
            weights=[
                ProposedOut(
                    symbol=line.symbol,
                    weight_percentage=percent(line.weight_u),
                    proposed_percentage=percent(line.proposed_u),
                    reason=line.reason,
                )
                for line in made.lines
            ],
            cash_percentage=percent(made.cash_u),
            risk_before=finite(made.risk_before),
            risk_after=finite(made.risk_after),
            flags=list(made.flags),
            **freshness(made.facts),
        )


@router.post(
    "/optimize-weights",
    summary="Weights by a method",
    responses=problems(*DECIDES),
)
@requires(Role.TRADER)
async def optimize_weights(rebalancing: Provided[Rebalancing], body: OptimizeIn) -> OptimizedOut:
    """Proposed weights within the bounds, and the risk before and after; writes nothing."""
    return OptimizedOut.of(await rebalancing.optimize(WeightingMethod(body.method)))


class RebalanceRunOut(Out):
    """One run; figures are null while it is active and if it failed."""

    run_id: str
    state: RunState = Field(description="State of the run.")
    reason: str
    method: str | None = Field(description="Null means the configured one.")
    scheduled_at: UtcTime | None = Field(description="Its tick of the schedule.")
    actor: str
    request_id: str
    owner: str = Field(description="Process that executed it.")
    requested_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None
    version_before: int | None
    version_after: int | None
    triggers: list[str] | None = Field(examples=[["drift"]])
    total_changes: int | None
    turnover: PercentPoints | None = Field(
        description="Sum of the absolute changes, percentage points."
    )
    estimated_cost: Share | None = Field(description="Of equity; null if unknown.")
    error: RebalanceErrorOut | None = Field(description="Reason that it failed.")

    @classmethod
    def of(cls, run: RebalanceRun) -> Self:
        return cls(**run_fields(run))


class RebalanceChangeOut(Out):
    symbol: str
    old: Percent
    new: Percent
    change: PercentPoints = Field(description="Percentage points.")
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
    """One step; a run whose process ended early has none."""

    name: RebalanceStepName = Field(description="Name of the step.")
    state: RebalanceStepState = Field(description="State of the step.")
    started_at: UtcTime
    finished_at: UtcTime
    detail: Json = Field(description="Facts of the step by name.")

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
    """One run with its changes and steps."""

    changes: list[RebalanceChangeOut] | None = Field(
        description="Weights that changed; null while the run is active and if it failed."
    )
    steps: list[RebalanceStepOut] = Field(description="Steps in their order.")

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


@router.get("/rebalances", summary="Rebalance runs")
@requires(Role.VIEWER)
async def list_rebalances(
    rebalancing: Provided[Rebalancing],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
    state: Annotated[RunState | None, Query(description="Only runs in this state.")] = None,
) -> Page[RebalanceRunOut]:
    """Newest first, with actor, time, reason, final state, changes and cost.

    Dry runs are not listed. At most one run is active (`planned` or `running`); if its process
    ends early, another run may start after 30 seconds.
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


@router.get("/rebalances/{run_id}", summary="One rebalance run", responses=problems(Code.NOT_FOUND))
@requires(Role.VIEWER)
async def get_rebalance(
    rebalancing: Provided[Rebalancing], run_id: IdPath
) -> RebalanceRunDetailOut:
    """One run with its changes and its steps load, plan, commit and announce."""
    return RebalanceRunDetailOut.from_run(*await rebalancing.runs.one(run_id))


@router.post(
    "/rebalances/{run_id}/replay",
    summary="Replay a rebalance from its stored inputs",
    dependencies=EXPENSIVE,
    responses=problems(*REPLAYS),
)
@requires(Role.TRADER)
@limited_by(RouteLimit.HEAVY)
async def replay_rebalance(
    replayer: Provided[DecisionReplayer], run_id: IdPath
) -> DecisionReplayOut:
    """Plans a run again and compares plan and lots, byte for byte; nothing is written.

    `run_id` is also the id of a proposal that took the place of an outdated one. Inputs are stored
    for `retention.decision_inputs_days`. Another version of the algorithm answers 409
    `algorithm_version` with the version of the service that can replay the run.
    """
    return DecisionReplayOut.from_replay(await replayer.replay_rebalance(run_id))


@router.post(
    "/replacements/{decision_id}/replay",
    summary="Replay a replacement from its stored inputs",
    dependencies=EXPENSIVE,
    responses=problems(*REPLAYS),
)
@requires(Role.TRADER)
@limited_by(RouteLimit.HEAVY)
async def replay_replacement(
    replayer: Provided[DecisionReplayer], decision_id: IdPath
) -> DecisionReplayOut:
    """Evaluates the replacements again and compares all proposals; nothing is written.

    `decision_id` is the `seq` of the event REPLACE in `GET /portfolio/history`, or the id of a
    proposal. A replacement that an operator asked for has no inputs. Otherwise as for a rebalance.
    """
    return DecisionReplayOut.from_replay(await replayer.replay_replacement(decision_id))
