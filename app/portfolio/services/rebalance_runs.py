"""Rebalance runs: one at a time, each stored with its steps and outcome."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.foundation.clock import SharedClock, agreed
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import (
    Code,
    ConflictError,
    NotFoundError,
    PreconditionFailedError,
    ServiceError,
)
from app.foundation.idempotency import Command
from app.foundation.ports import Clock, NewId
from app.foundation.sql.database import BULK_STATEMENT_S, Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.domain.event_log import instant, instant_text, number_text
from app.portfolio.domain.rebalance_plan import Plan
from app.portfolio.domain.rebalance_run import (
    LEASE,
    RebalanceOutcome,
    RebalanceRun,
    RebalanceStep,
    RunFailure,
    RunState,
)
from app.portfolio.domain.weight_allocation import Allocation, Flag
from app.portfolio.services.lot_plan import LotPlan, LotRule
from app.portfolio.services.rebalance_steps import RebalanceDecision, RebalanceRequest, failure_of
from app.portfolio.services.tradeability import DataFacts
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository

_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class RebalanceResult:
    """The plan; `version` is the one that it made, or the present one where it changed nothing.

    A result read from a stored run has no constraints in its plan.
    """

    run_id: str
    state: RunState | None  # None for a dry run, which is no run
    plan: Plan
    lots: LotPlan | None  # where a balance was given
    cost: float | None  # fraction of equity
    has_impact: bool  # whether the cost holds what the order moves the price
    lot_rule: LotRule | None  # None: a run of before the rule
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
    owner: str  # names this process to people
    shared: SharedClock | None = None  # None: this process is the only one

    async def now(self, unit: UnitOfWork) -> datetime:
        """Time of the clock that ends leases."""
        return await agreed(unit, self.shared, self.clock)

    async def forget_old(self, keep: timedelta) -> int:
        """Drops runs that ended longer ago; gives their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return await unit.get(RebalanceRunRepository).forget(await self.now(unit) - keep)

    async def claim(self, request: RebalanceRequest, command: Command) -> RebalanceRun:
        """Claim a run with exclusive use of the portfolio, or get the ended run of the same tick.

        It is committed before any work begins, so that every process sees it. A tick of the
        schedule has one executor at a time: a new executor continues the run that another
        process started. Raises ConflictError(rebalance_in_progress) with the id of the run
        that is active.
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

        A transaction with an unknown outcome may have been committed: then the run is closed
        already and stays unchanged. None where the database cannot tell now, and of a run for
        another version of the portfolio, which is dropped: it never began.
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

    Raises ConflictError where another process has taken its place: then nothing may be committed.
    """
    if not await unit.get(RebalanceRunRepository).close(run, steps):
        raise lost_run_error(run)


async def require_no_active_run(unit: UnitOfWork, now: datetime) -> None:
    """Check that no run is about to set weights; raises ConflictError(rebalance_in_progress).

    To be asked under the portfolio's lock, by what changes its members.
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
