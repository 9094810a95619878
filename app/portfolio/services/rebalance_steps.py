"""Steps of a rebalance, one function each: load, plan, commit, announce.

The first three run in one transaction under the portfolio lock. External effects, such as orders,
attach after the commit as further steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from app.configuration.domain.model import WeightingMethod
from app.foundation.errors import ConflictError, ServiceError, UnavailableError
from app.foundation.idempotency import Command
from app.foundation.ports import Clock
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.domain.event_log import Draft, EventType, number_text
from app.portfolio.domain.events import PlanCreated
from app.portfolio.domain.membership import PortfolioChange, set_weights
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import ApprovedPlan, plan_approved
from app.portfolio.domain.rebalance_plan import Plan, interval_slot, plan_rebalance
from app.portfolio.domain.rebalance_run import (
    INTERRUPTED,
    RebalanceStep,
    RebalanceStepName,
    RebalanceStepState,
    RunFailure,
)
from app.portfolio.services.change_recorder import ChangeRecorder
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.lot_plan import (
    LotPlan,
    LotRule,
    derive_lot_rule,
    estimate_trading_costs,
    plan_lots,
)
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from app.scoring.domain.board import CLOCK_TOLERANCE


@dataclass(frozen=True, slots=True)
class RebalanceRequest:
    """Parameters of one rebalance."""

    reason: str = "requested"
    account_balance: Decimal | None = None  # with it the plan names lots
    method: WeightingMethod | None = None  # in place of the configured one
    scheduled_at: datetime | None = None  # the tick; the same tick is carried out once
    is_dry_run: bool = False
    approved: ApprovedPlan | None = None  # the plan to carry out, in place of that of the moment
    is_unattended: bool = False  # by the schedule: then the policy says how far it goes


@dataclass(frozen=True, slots=True)
class RebalanceInput:
    """Locked portfolio and the decision context of a rebalance."""

    portfolio: Portfolio
    context: DecisionContext
    rebalanced_at: datetime | None  # when weights were last set by a rebalance
    is_interval_done: bool = False  # since the interval last passed a check found nothing to do
    refusal: RunFailure | None = None  # the error that a real run would raise; dry runs only


@dataclass(frozen=True, slots=True)
class RebalanceDecision:
    """The plan; `cost` is a fraction of equity, None where a price or a book is missing."""

    plan: Plan
    cost: float | None
    has_impact: bool  # whether the cost holds what the order moves the price
    lots: LotPlan | None
    lot_rule: LotRule


async def load_input(
    unit: UnitOfWork, contexts: DecisionContextFactory, request: RebalanceRequest, command: Command
) -> RebalanceInput:
    """Lock the portfolio and check that the data allows a decision.

    Raises PreconditionFailedError and, unless it is a dry run, UnavailableError (no_board_yet,
    market_data_stale) and ConflictError(trading_disabled).
    """
    portfolio = await unit.get(PortfolioRepository).load(for_update=True)
    command.require_version(portfolio.version)
    context, refusal = await contexts.of(unit), None
    try:
        context.require_fresh_members(portfolio)
        context.controls.require((Draft(EventType.REBALANCE, None, None, {}, request.reason),))
    except (UnavailableError, ConflictError) as refused:
        if not request.is_dry_run:
            raise
        refusal = failure_of(refused)
    slot = interval_slot(_with_proven_age(portfolio, context), context.configuration, context.at)
    is_done = slot is not None and await unit.get(RebalanceRunRepository).has_found_nothing(
        slot, context.at + CLOCK_TOLERANCE
    )
    return RebalanceInput(
        portfolio, context, await unit.get(HistoryRepository).last_rebalance(), is_done, refusal
    )


def _with_proven_age(portfolio: Portfolio, context: DecisionContext) -> Portfolio:
    """Portfolio whose weights carry their proven age."""
    weighted_at = portfolio.weighted_at
    if weighted_at is None:
        return portfolio
    return replace(portfolio, weighted_at=context.proven(weighted_at))


def decide_rebalance(loaded: RebalanceInput, request: RebalanceRequest) -> RebalanceDecision:
    """Plan the weight changes with their cost and lots; writes nothing.

    Raises ConflictError(plan_changed) when the approved plan is no longer valid.
    """
    portfolio, context = loaded.portfolio, loaded.context
    held, statuses = context.at_current_prices(portfolio), context.member_statuses(portfolio)
    held, rebalanced_at = _with_proven_age(held, context), loaded.rebalanced_at
    balance = request.account_balance
    smallest = derive_lot_rule(statuses, balance, context)
    made = plan_rebalance(
        held,
        statuses,
        context.configuration,
        context.at,
        context.covariance(portfolio),
        request.method,
        rebalanced_at=None if rebalanced_at is None else context.proven(rebalanced_at),
        is_interval_done=loaded.is_interval_done,
        least_u=smallest.least_u,
    )
    if request.approved is not None:
        low_u = context.configuration.min_weight_u
        made = plan_approved(request.approved, held, made, statuses, smallest.least_u, low_u)
    cost, has_impact = estimate_trading_costs(made.changes, balance, context)
    # Without a reason to trade the weights in force stay, and with them the lots.
    kept = {member.symbol: member.weight_u for member in portfolio.members}
    weights_u = made.allocation.weights_u if made.triggers else kept
    lots = None if balance is None else plan_lots(weights_u, balance, context)
    return RebalanceDecision(made, cost, has_impact, lots, smallest)


async def commit_plan(
    unit: UnitOfWork,
    recorder: ChangeRecorder,
    run_id: str,
    loaded: RebalanceInput,
    planned: RebalanceDecision,
    request: RebalanceRequest,
    command: Command,
) -> Portfolio:
    """Set the planned weights, append the history event and return the new state."""
    context, before = loaded.context, loaded.portfolio
    method = request.method or context.configuration.rebalancing.method
    facts = _facts(run_id, planned, method)
    done = set_weights(
        PortfolioChange(before, ()),
        planned.plan.allocation,
        facts,
        context.at,
        request.reason,
        EventType.REBALANCE,
    )
    await recorder.commit(unit, before, done, context, command)
    return done.portfolio


def publish_plan(
    unit: UnitOfWork, run_id: str, planned: RebalanceDecision, after: Portfolio, at: datetime
) -> None:
    """Publish the plan after the transaction commits."""
    unit.announce(PlanCreated(run_id, after.version, len(planned.plan.changes), at))


def _facts(run_id: str, planned: RebalanceDecision, method: WeightingMethod) -> dict[str, object]:
    made = planned.plan
    return {
        "run_id": run_id,
        "method": method.value,
        "triggers": [trigger.value for trigger in made.triggers],
        "turnover_u": made.turnover_u,
        "estimated_cost": number_text(planned.cost),
        "reasons": {change.symbol: change.reason for change in made.changes},
    }


@dataclass(slots=True)
class StepRecorder:
    """Records the steps of one rebalance attempt with times and details."""

    clock: Clock
    steps: list[RebalanceStep] = field(default_factory=list)

    @contextmanager
    def step(self, name: RebalanceStepName) -> Iterator[dict[str, Any]]:
        """Record one step; the yielded mapping becomes its detail."""
        detail: dict[str, Any] = {}
        step = RebalanceStep(name, RebalanceStepState.DONE, self.clock(), self.clock(), detail)
        try:
            yield detail
        except BaseException as error:
            self._take(
                replace(
                    step, state=RebalanceStepState.FAILED, detail=failure_detail(failure_of(error))
                )
            )
            raise
        self._take(step)

    def skip(self, *names: RebalanceStepName) -> None:
        now = self.clock()
        self.steps += [
            RebalanceStep(name, RebalanceStepState.SKIPPED, now, now, {}) for name in names
        ]

    def _take(self, step: RebalanceStep) -> None:
        self.steps.append(replace(step, finished_at=self.clock()))


def failure_of(error: BaseException) -> RunFailure:
    """Failure of a run, with the code and detail of the problem response."""
    if isinstance(error, ServiceError):
        return RunFailure(error.code.value, error.detail)
    return RunFailure(
        INTERRUPTED, "It was interrupted before it had finished; nothing was changed."
    )


def failure_detail(failure: RunFailure) -> dict[str, Any]:
    """Failure as JSON detail of its step."""
    return {"code": failure.code, "detail": failure.detail}
