"""Rebalance runs: one at a time, each stored with its outcome and its steps.

Steps are load, plan, commit and announce. The first three run in one transaction under the
portfolio lock. External effects, such as orders, attach after the commit as further steps.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.configuration.domain.model import WeightingMethod
from app.foundation.clock import SharedClock, current_time
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import (
    Code,
    ConflictError,
    NotFoundError,
    PreconditionFailedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.hash_chain import instant_text
from app.foundation.idempotency import Command
from app.foundation.ports import Clock, NewId
from app.foundation.sql.database import BULK_STATEMENT_S, Database, UnitOfWork
from app.portfolio.domain.event_log import Draft, EventType, instant, number_text
from app.portfolio.domain.events import PlanCreated
from app.portfolio.domain.membership import PortfolioChange, set_weights
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import ApprovedPlan
from app.portfolio.domain.rebalance_plan import Plan, interval_slot
from app.portfolio.domain.rebalance_run import (
    INTERRUPTED,
    LEASE,
    RebalanceOutcome,
    RebalanceRun,
    RebalanceStep,
    RebalanceStepName,
    RebalanceStepState,
    RunFailure,
    RunState,
)
from app.portfolio.domain.weighting import Allocation, Flag
from app.portfolio.services.change_recorder import ChangeRecorder
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.decision_replay import (
    CovarianceRows,
    RebalanceSnapshot,
    plan_from_snapshot,
)
from app.portfolio.services.lot_plan import (
    LotPlan,
    LotRule,
    collect_lot_steps,
    derive_lot_rule,
    estimate_trading_costs,
)
from app.portfolio.services.tradeability import DataFacts
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from app.scoring.domain.board import CLOCK_TOLERANCE


@dataclass(frozen=True, slots=True)
class RebalanceRequest:
    """Parameters of one rebalance."""

    reason: str = "requested"
    account_balance: Decimal | None = None  # adds lots to the plan
    method: WeightingMethod | None = None  # in place of the configured one
    scheduled_at: datetime | None = None  # the tick, which is executed once
    is_dry_run: bool = False
    approved: ApprovedPlan | None = None  # plan to execute instead of the current one
    is_unattended: bool = False  # by the schedule, subject to the automation settings


@dataclass(frozen=True, slots=True)
class RebalanceInput:
    """Locked portfolio and the decision context of a rebalance."""

    portfolio: Portfolio
    context: DecisionContext
    rebalanced_at: datetime | None  # when weights were last set by a rebalance
    is_interval_done: bool = False  # a check since the last interval found nothing to do
    refusal: RunFailure | None = None  # the error that a real run would raise; dry runs only


@dataclass(frozen=True, slots=True)
class RebalanceDecision:
    """The plan; `cost` is a fraction of equity, None where a price or a book is missing."""

    plan: Plan
    cost: float | None
    has_impact: bool  # the cost includes the price impact of the order
    lots: LotPlan | None
    lot_rule: LotRule
    snapshot: RebalanceSnapshot  # inputs of plan and lots


async def load_input(
    unit: UnitOfWork, contexts: DecisionContextFactory, request: RebalanceRequest, command: Command
) -> RebalanceInput:
    """Lock the portfolio and check that the data allows a decision.

    Raises PreconditionFailedError and, unless it is a dry run, UnavailableError (no_board_yet,
    market_data_stale) and ConflictError(trading_disabled).
    """
    portfolio = await unit.get(PortfolioRepository).load(for_update=True)
    command.require_version(portfolio.version)
    return await prepare_input(unit, portfolio, await contexts.of(unit), request)


async def prepare_input(
    unit: UnitOfWork, portfolio: Portfolio, context: DecisionContext, request: RebalanceRequest
) -> RebalanceInput:
    """Check that the data allows a decision, and read the times of the last rebalance and check.

    Raises UnavailableError and ConflictError as `load_input`; a dry run states them instead.
    """
    refusal = None
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
    recorded_u = {member.symbol: member.weight_u for member in portfolio.members}
    known = context.covariance(portfolio)
    snapshot = RebalanceSnapshot(
        configuration_version=context.configuration.version,
        portfolio=held,
        recorded_u=recorded_u,
        statuses=statuses,
        at=context.at,
        covariance=CovarianceRows.from_covariance(known),
        method=request.method,
        rebalanced_at=None if rebalanced_at is None else context.proven(rebalanced_at),
        is_interval_done=loaded.is_interval_done,
        least_u=smallest.least_u,
        approved=request.approved,
        balance=balance,
        lot_steps=None if balance is None else collect_lot_steps(recorded_u, context),
    )
    planned = plan_from_snapshot(snapshot, context.configuration, known)
    cost, has_impact = estimate_trading_costs(planned.plan.changes, balance, context)
    return RebalanceDecision(planned.plan, cost, has_impact, planned.lots, smallest, snapshot)


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
    unit.publish_after_commit(PlanCreated(run_id, after.version, len(planned.plan.changes), at))


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


_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class RebalanceResult:
    """Plan of the run; `version` is the one created, or the current one without a change.

    A result read from a stored run has no constraints in its plan.
    """

    run_id: str
    state: RunState | None  # None for a dry run, which is no run
    plan: Plan
    lots: LotPlan | None  # None without a balance
    cost: float | None  # fraction of equity
    has_impact: bool  # the cost includes the price impact of the order
    lot_rule: LotRule | None  # None for a run older than the rule
    version: int
    cash_u: int
    facts: DataFacts
    would_be_refused: RunFailure | None = None  # of a dry run

    @property
    def is_dry_run(self) -> bool:
        return self.state is None


@dataclass(frozen=True, slots=True)
class RebalanceRuns:
    """Claims, closes and lists runs."""

    database: Database
    clock: Clock
    new_id: NewId
    owner: str  # readable name of this process
    shared: SharedClock | None = None  # None: this process is the only one

    async def now(self, unit: UnitOfWork) -> datetime:
        """Time of the clock that ends leases."""
        return await current_time(unit, self.shared, self.clock)

    async def delete_old(self, keep: timedelta) -> int:
        """Delete runs that ended longer ago and return their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return await unit.get(RebalanceRunRepository).delete_old(await self.now(unit) - keep)

    async def claim(self, request: RebalanceRequest, command: Command) -> RebalanceRun:
        """Claim a run with exclusive use of the portfolio, or get the ended run of the same tick.

        The claim is committed before any work begins, so that every process sees it. A tick of
        the schedule has one executor at a time: a new executor continues the run that another
        process started. Raises ConflictError(rebalance_in_progress) with the id of the active run.
        """
        now = self.clock()
        wanted = RebalanceRun(
            run_id=self.new_id(),
            state=RunState.PLANNED,
            reason=request.reason,
            method=None if request.method is None else request.method.value,
            scheduled_at=request.scheduled_at,
            actor=command.actor,
            request_id=command.request_id,
            key=None if command.idempotency_key is None else command.idempotency_key.key,
            owner=self.owner,
            requested_at=now,
            lease_until=now + LEASE,
        )

        async def claimed(unit: UnitOfWork) -> tuple[RebalanceRun, bool]:
            now = await self.now(unit)
            mine = replace(wanted, requested_at=now, lease_until=now + LEASE)
            found = await unit.get(RebalanceRunRepository).claim(mine, now)
            if (
                request.is_unattended
                and found.is_active
                and found.scheduled_at == request.scheduled_at
            ):
                found = replace(found, owner=self.owner, lease_until=now + LEASE)
                return found, await unit.get(RebalanceRunRepository).take_over(found)
            return found, found.run_id == wanted.run_id or not found.is_active

        try:
            run, is_given = await self.database.run(claimed)
        except BaseException as error:
            await self.give_up(wanted, error, ())  # the claim may have been committed
            raise
        if not is_given:
            raise in_progress_error(run)
        return run

    async def give_up(
        self, run: RebalanceRun, error: BaseException, steps: Iterable[RebalanceStep]
    ) -> RebalanceRun | None:
        """Close `run`, which failed with `error`, and return its stored state.

        A transaction with an unknown outcome may have been committed: the run is then closed
        already and stays unchanged. A run for another version of the portfolio never began and is
        deleted. None for such a run and while the database is unavailable.
        """
        try:
            async with self.database.write() as unit:
                if isinstance(error, PreconditionFailedError):
                    await unit.get(RebalanceRunRepository).withdraw(run)
                    return None
                failed = run.failed(failure_of(error), await self.now(unit))
                await unit.get(RebalanceRunRepository).close(failed, steps)
                return await unit.get(RebalanceRunRepository).one(run.run_id)
        except ServiceError:
            return None  # its lease ends by itself

    async def page(
        self, before: tuple[datetime, str] | None, limit: int, state: RunState | None = None
    ) -> tuple[RebalanceRun, ...]:
        """Newest first; `before` is (requested_at, run_id) of the last of the page before."""
        async with self.database.read() as unit:
            return await unit.get(RebalanceRunRepository).page(before, limit, state)

    async def one(self, run_id: str) -> tuple[RebalanceRun, tuple[RebalanceStep, ...]]:
        """A run and the steps that it took; raises NotFoundError."""
        async with self.database.read() as unit:
            run = await unit.get(RebalanceRunRepository).one(run_id)
            steps = await unit.get(RebalanceRunRepository).steps(run_id)
        if run is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no such rebalance run.")
        return run, steps


async def end_run(unit: UnitOfWork, run: RebalanceRun, steps: Iterable[RebalanceStep]) -> None:
    """Close `run` in the transaction of its effect.

    Raises ConflictError if another process took over; the transaction must not commit then.
    """
    if not await unit.get(RebalanceRunRepository).close(run, steps):
        raise lost_run_error(run)


async def require_no_active_run(unit: UnitOfWork, now: datetime) -> None:
    """Check that no run is about to set weights; raises ConflictError(rebalance_in_progress).

    Changes of the membership call it under the portfolio's lock.
    """
    active = await unit.get(RebalanceRunRepository).active()
    if active is not None and not active.has_lapsed(now):
        raise in_progress_error(active)


def in_progress_error(run: RebalanceRun) -> ConflictError:
    """Error that names the active run."""
    return ConflictError(
        Code.REBALANCE_IN_PROGRESS,
        f"A rebalance is being carried out: run {run.run_id}.",
        retry_after_s=_RETRY_S,
        facts={"run_id": run.run_id},
    )


def answered_elsewhere_error() -> ConflictError:
    """Error for a request that another process executed under the same key."""
    return ConflictError(
        Code.IDEMPOTENCY_IN_PROGRESS, "The same request was carried out by another process."
    )


def lost_run_error(run: RebalanceRun) -> ConflictError:
    """Error for a run that another process closed after its lease expired."""
    return ConflictError(
        Code.REBALANCE_IN_PROGRESS,
        f"Run {run.run_id} took too long and was given up; nothing was changed.",
        retry_after_s=_RETRY_S,
        facts={"run_id": run.run_id},
    )


def build_outcome(
    planned: RebalanceDecision, before: int, after: int, cash_u: int, facts: DataFacts
) -> RebalanceOutcome:
    """Outcome to store, from which a retry gets the same response."""
    made = planned.plan
    return RebalanceOutcome(
        version_before=before,
        version_after=after,
        triggers=made.triggers,
        changes=made.changes,
        turnover_u=made.turnover_u,
        cost=planned.cost,
        details={
            "cash_u": cash_u,
            "has_impact": planned.has_impact,
            "plan_cost": made.cost,
            "allocation": {
                "weights_u": dict(made.allocation.weights_u),
                "cash_u": made.allocation.cash_u,
                "flags": [flag.value for flag in made.allocation.flags],
            },
            "lot_rule": {
                "balance": number_text(planned.lot_rule.balance),
                "source": planned.lot_rule.source,
                "least_u": dict(planned.lot_rule.least_u),
            },
            "held_back": list(made.held_back),
            "waits_until": None if made.waits_until is None else instant_text(made.waits_until),
            "lots": None if planned.lots is None else asdict(planned.lots),
            "facts": {
                "as_of": None if facts.as_of is None else instant_text(facts.as_of),
                "data_source": facts.data_source.value,
                "data_status": facts.data_status.value,
            },
        },
    )


def result_from_run(run: RebalanceRun) -> RebalanceResult:
    """Result of a stored run. Raises LookupError for a run without outcome."""
    if run.outcome is None:
        raise LookupError(f"run {run.run_id} has no outcome")
    kept, details = run.outcome, run.outcome.details
    allocation, facts, waits = details["allocation"], details["facts"], details.get("waits_until")
    return RebalanceResult(
        run_id=run.run_id,
        state=run.state,
        plan=Plan(
            changes=kept.changes,
            triggers=kept.triggers,
            allocation=Allocation(
                allocation["weights_u"],
                allocation["cash_u"],
                tuple(Flag(name) for name in allocation["flags"]),
            ),
            constraints={},
            turnover_u=kept.turnover_u,
            cost=details["plan_cost"],
            waits_until=None if waits is None else instant(waits),
            held_back=tuple(details.get("held_back", ())),
        ),
        lots=_lots(details["lots"]),
        cost=kept.cost,
        has_impact=details["has_impact"],
        lot_rule=_lot_rule(details.get("lot_rule")),
        version=kept.version_after,
        cash_u=details["cash_u"],
        facts=DataFacts(
            None if facts["as_of"] is None else instant(facts["as_of"]),
            DataSource(facts["data_source"]),
            DataStatus(facts["data_status"]),
        ),
    )


def _lot_rule(kept: dict[str, Any] | None) -> LotRule | None:
    if kept is None:
        return None
    balance = None if kept["balance"] is None else Decimal(kept["balance"])
    return LotRule(balance, kept["source"], kept["least_u"])


def _lots(kept: dict[str, Any] | None) -> LotPlan | None:
    return None if kept is None else LotPlan(**{**kept, "missed": tuple(kept["missed"])})
