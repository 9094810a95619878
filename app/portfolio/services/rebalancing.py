"""Rebalancing: compares weights with targets, plans changes and executes each run once."""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from app.configuration.domain.model import WeightingMethod
from app.configuration.domain.sections import AutomationMode
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.decision_log import DecisionKind, DecisionLog
from app.foundation.errors import ServiceError
from app.foundation.idempotency import (
    Command,
    CommandResult,
    IdempotentExecutor,
    Render,
    TransactionHooks,
)
from app.foundation.sql.database import Database, UnitOfWork
from app.portfolio.domain.proposals import ProposalKind
from app.portfolio.domain.rebalance_plan import Trigger
from app.portfolio.domain.rebalance_run import RebalanceRun, RebalanceStepName, RunState, slot
from app.portfolio.services import views as weighing
from app.portfolio.services.change_recorder import ChangeRecorder
from app.portfolio.services.decision_context import (
    CountedDecision,
    DecisionContext,
    DecisionContextFactory,
)
from app.portfolio.services.decision_replay import PlannedRebalance
from app.portfolio.services.proposal_book import proposal_from_plan, sync_open_proposals
from app.portfolio.services.rebalance_runs import (
    RebalanceDecision,
    RebalanceInput,
    RebalanceRequest,
    RebalanceResult,
    RebalanceRuns,
    StepRecorder,
    answered_elsewhere_error,
    build_outcome,
    commit_plan,
    decide_rebalance,
    end_run,
    load_input,
    lost_run_error,
    publish_plan,
    result_from_run,
)
from app.portfolio.services.tradeability import describe_data
from app.portfolio.services.views import (
    OptimizationResult,
    WeightsReport,
    get_target_weights,
    members_key,
)
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from app.security.domain.audit import SecurityEventKind

CHECK: Final = "scheduled check"


@dataclass(frozen=True, slots=True)
class Rebalancing:
    """Plans and executes rebalances."""

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    recorder: ChangeRecorder
    runs: RebalanceRuns
    decisions: DecisionLog = DecisionLog()  # noqa: RUF009  # the default is frozen

    async def weights(self) -> WeightsReport:
        """Recorded weights beside the targets; with stale data the targets of the last change."""
        state, context = await self.contexts.present(self.database)
        views = self.contexts.views
        made = views.get(
            "weights",
            members_key(state, context),
            lambda: weighing.report_weights(
                state.portfolio, context, get_target_weights(state, context, views)
            ),
        )
        return replace(made, version=state.portfolio.version)

    async def has_drifted(self) -> bool:
        """True if a check would change weights now because of drift; a read.

        False while decisions are not allowed. Raises UnavailableError without the database.
        """
        state, context = await self.contexts.present(self.database)
        portfolio = state.portfolio
        if not context.controls.switch.enabled or not context.is_sound(portfolio):
            return False
        made = decide_rebalance(
            RebalanceInput(portfolio, context, state.rebalanced_at), RebalanceRequest(CHECK)
        ).plan
        return Trigger.DRIFT in made.triggers and bool(made.changes)

    async def optimize(self, method: WeightingMethod) -> OptimizationResult:
        """Compute weights by a method with the volatility before and after; a read.

        Raises UnavailableError (no_board_yet, market_data_stale).
        """
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
            context = await self.contexts.of(unit)
        return weighing.optimize_weights(portfolio, context, method)

    async def rebalance(
        self,
        command: Command,
        *,
        dry_run: bool = False,
        reason: str = "requested",
        account_balance: Decimal | None = None,
        method: WeightingMethod | None = None,
        scheduled_at: datetime | None = None,
        render: Render[RebalanceResult] | None = None,
    ) -> CommandResult[RebalanceResult]:
        """Execute the current plan, by the configured method or another one.

        Without a trigger the portfolio is unchanged. Every call is a run; only one is active at a
        time. The tick `scheduled_at` has one run, and later calls get its stored result. A dry run
        writes nothing and returns the reason for which a run would be refused now.
        Raises UnavailableError (no_board_yet, market_data_stale), PreconditionFailedError,
        ConflictError (rebalance_in_progress with the id of the active run, trading_disabled).
        """
        request = RebalanceRequest(
            reason, account_balance, method, scheduled_at, is_dry_run=dry_run
        )
        if dry_run:
            return await self._dry_run(request, command, render)
        audited = command.audited(
            SecurityEventKind.MANUAL_RUN,
            "rebalance",
            "portfolio",
            lambda done: {"run_id": done.run_id, "version": done.version},
        )
        return await self.run(request, audited, render)

    async def check(self, command: Command, scheduled_at: datetime | None = None) -> None:
        """Run the rebalance of one tick of the schedule; a repeated tick does nothing.

        The default tick is the latest one of the configured interval. The automation settings
        decide if the plan is recorded, proposed or executed.
        """
        if scheduled_at is None:
            async with self.database.read() as unit:
                intervals = (await unit.get(ConfigurationRepository).current()).intervals
            scheduled_at = slot(self.runs.clock(), intervals.rebalance_check_s)
        request = RebalanceRequest(CHECK, scheduled_at=scheduled_at, is_unattended=True)
        await self.run(request, command)

    async def _dry_run(
        self, request: RebalanceRequest, command: Command, render: Render[RebalanceResult] | None
    ) -> CommandResult[RebalanceResult]:
        run_id = self.runs.new_id()

        async def look(unit: UnitOfWork) -> RebalanceResult:
            loaded = await load_input(unit, self.contexts, request, command)
            planned, before = decide_rebalance(loaded, request), loaded.portfolio
            made = planned.plan
            return RebalanceResult(
                run_id=run_id,
                state=None,
                plan=made,
                lots=planned.lots,
                cost=planned.cost,
                has_impact=planned.has_impact,
                lot_rule=planned.lot_rule,
                version=before.version,
                cash_u=made.allocation.cash_u if made.changes else before.cash_u,
                facts=describe_data(loaded.context),
                would_be_refused=loaded.refusal,
            )

        return await self.idempotency.run(command, look, render)

    async def run(
        self,
        request: RebalanceRequest,
        command: Command,
        render: Render[RebalanceResult] | None = None,
        hooks: TransactionHooks[RebalanceResult] | None = None,
    ) -> CommandResult[RebalanceResult]:
        """Claim a run and execute it with `hooks`; see `rebalance`."""
        claimed: list[RebalanceRun] = []
        recorder = StepRecorder(self.runs.clock)

        async def claim() -> None:
            claimed.append(await self.runs.claim(request, command))

        async def change(unit: UnitOfWork) -> RebalanceResult:
            (run,) = claimed
            if not run.is_active:
                return result_from_run(run)
            recorder.steps.clear()  # the transaction may be retried
            return await self.execute(unit, run, request, command, recorder)

        try:
            with self.contexts.refusals.counted(CountedDecision.REBALANCE):
                outcome = await self.idempotency.run(command, change, render, claim, hooks)
        except BaseException as error:
            ours = [run for run in claimed if run.is_active]
            for run in ours:
                record = await self.runs.give_up(run, error, recorder.steps)
                is_done = record is not None and record.outcome is not None
                # Done by this call with its response lost, or by another executor of the tick.
                if record is not None and is_done and isinstance(error, ServiceError):
                    result = result_from_run(record)
                    return CommandResult(result, None if render is None else render(result))
            raise
        if outcome.is_replay:
            # Another process took over the key and finished first: close our run.
            for run in claimed:
                if run.is_active:
                    await self.runs.give_up(run, answered_elsewhere_error(), ())
        is_again = outcome.is_replay or any(not run.is_active for run in claimed)
        return CommandResult(outcome.result, outcome.answer, is_replay=is_again)

    async def execute(
        self,
        unit: UnitOfWork,
        run: RebalanceRun,
        request: RebalanceRequest,
        command: Command,
        recorder: StepRecorder,
    ) -> RebalanceResult:
        """Execute all steps of a claimed run in one transaction."""
        with recorder.step(RebalanceStepName.LOAD) as detail:
            loaded = await load_input(unit, self.contexts, request, command)
            before, context = loaded.portfolio, loaded.context
            running = run.to(RunState.RUNNING, await self.runs.now(unit))
            if not await unit.get(RebalanceRunRepository).start(running):
                raise lost_run_error(run)
            board = context.require_board()
            detail |= {"version": before.version, "board": board.run_id}
        with recorder.step(RebalanceStepName.PLAN) as detail:
            planned = decide_rebalance(loaded, request)
            made = planned.plan
            detail |= {"changes": len(made.changes), "turnover_u": made.turnover_u}
            await self._record(unit, run.run_id, planned)
        after, state = before, self._state(planned, request, context)
        if state is RunState.DONE:
            with recorder.step(RebalanceStepName.COMMIT) as detail:
                after = await commit_plan(
                    unit, self.recorder, run.run_id, loaded, planned, request, command
                )
                detail["version"] = after.version
        else:
            recorder.skip(RebalanceStepName.COMMIT)
        if state is RunState.DONE or request.is_unattended:
            with recorder.step(RebalanceStepName.ANNOUNCE) as detail:
                if state is RunState.DONE:
                    publish_plan(unit, run.run_id, planned, after, context.at)
                if request.is_unattended:
                    detail["proposals"] = await self._offer(unit, run, planned, state, loaded)
        else:
            recorder.skip(RebalanceStepName.ANNOUNCE)
        facts = describe_data(context)
        outcome = build_outcome(planned, before.version, after.version, after.cash_u, facts)
        ended = running.ended(outcome, state, await self.runs.now(unit))
        await end_run(unit, ended, recorder.steps)
        return RebalanceResult(
            run_id=run.run_id,
            state=state,
            plan=made,
            lots=planned.lots,
            cost=planned.cost,
            has_impact=planned.has_impact,
            lot_rule=planned.lot_rule,
            version=after.version,
            cash_u=after.cash_u,
            facts=facts,
        )

    async def propose_anew(self, command: Command) -> str | None:
        """Propose the current plan in place of one that is no longer valid.

        Returns the proposal id; None without a trigger. Raises the errors of `check`.
        """
        proposal_id, request = self.runs.new_id(), RebalanceRequest(CHECK, is_unattended=True)

        async def change(unit: UnitOfWork) -> str | None:
            loaded = await load_input(unit, self.contexts, request, command)
            planned = decide_rebalance(loaded, request)
            wanted = proposal_from_plan(
                proposal_id, None, planned, loaded.portfolio, loaded.context
            )
            proposed = (wanted,) if planned.plan.changes else ()
            if proposed:
                await self._record(unit, proposal_id, planned)
            kinds = (ProposalKind.REBALANCE,)
            now_open = await sync_open_proposals(unit, kinds, proposed, loaded.context)
            return next((one.proposal_id for one in now_open), None)

        return await self.database.run(change)

    async def _record(self, unit: UnitOfWork, decision_id: str, planned: RebalanceDecision) -> None:
        """Stores the inputs of a plan for its replay."""
        given, kind = planned.snapshot, DecisionKind.REBALANCE
        output = PlannedRebalance(planned.plan, planned.lots)
        await self.decisions.record(unit, kind, decision_id, given.at, given, output)

    @staticmethod
    def _state(
        planned: RebalanceDecision, request: RebalanceRequest, context: DecisionContext
    ) -> RunState:
        """Target state of the run."""
        if not planned.plan.changes:
            return RunState.UNCHANGED
        policy = (
            context.configuration.automation.rebalance
            if request.is_unattended
            else AutomationMode.AUTO
        )
        return _GOES[policy]

    async def _offer(
        self,
        unit: UnitOfWork,
        run: RebalanceRun,
        planned: RebalanceDecision,
        state: RunState,
        loaded: RebalanceInput,
    ) -> list[str]:
        """Propose the plan or close its former proposal; returns the open proposals."""
        context, proposal_id = loaded.context, self.runs.new_id()
        wanted = proposal_from_plan(proposal_id, run.run_id, planned, loaded.portfolio, context)
        proposed = (wanted,) if state is RunState.PROPOSED else ()
        now_open = await sync_open_proposals(unit, (ProposalKind.REBALANCE,), proposed, context)
        return [one.proposal_id for one in now_open]


_GOES: Final = {
    AutomationMode.OBSERVE: RunState.OBSERVED,
    AutomationMode.PROPOSE: RunState.PROPOSED,
    AutomationMode.AUTO: RunState.DONE,
}
