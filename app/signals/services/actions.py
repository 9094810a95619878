"""Applies approved signals as proposals or changes of the portfolio, each at most once."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from app.configuration.domain.sections import AutomationMode
from app.foundation.errors import ConflictError, PreconditionFailedError, RefusedError
from app.foundation.idempotency import Command, CommandResult, Render, TransactionHooks
from app.foundation.ports import Clock, NewId
from app.foundation.sql.database import CommitMark, Database, UnitOfWork
from app.portfolio.domain.candidate_selection import find_refusal
from app.portfolio.domain.events import proposal_opened
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import (
    Decision,
    MembershipMove,
    Proposal,
    ProposalKind,
    ProposalState,
)
from app.portfolio.domain.replacement import OutgoingMember, ReplacementBlock, propose_replacement
from app.portfolio.services.decision_context import (
    CountedDecision,
    DecisionContext,
    DecisionContextFactory,
)
from app.portfolio.services.membership import PortfolioService, RemoveResult, ReplaceResult
from app.portfolio.services.proposal_book import close_proposal
from app.portfolio.services.proposals import Approval
from app.portfolio.services.replacement import known_noises
from app.portfolio.services.replacement_candidates import correlation_of, describe_symbol
from app.portfolio.services.views import MemberView, weakest
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.proposals import ProposalRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.signals.domain.evaluated_signal import EvaluatedSignal, automation_for, format_reason
from app.signals.domain.models import (
    Direction,
    MembershipStep,
    Signal,
    SignalEffect,
    SignalState,
)
from app.signals.services.evaluation import publish_signals
from app.signals.storage.signals import SignalEffectRepository, SignalRepository

# A signal replaces the confirmation on several boards.
_WAIVED = frozenset({ReplacementBlock.UNCONFIRMED})


async def plan_step(
    signal: Signal, portfolio: Portfolio, context: DecisionContext, unit: UnitOfWork
) -> MembershipStep | str:
    """Returns the membership change of a signal, or the reason for none."""
    symbol = signal.claim.symbol
    members = tuple(member.symbol for member in portfolio.members)
    if symbol is None or signal.claim.direction is Direction.NEUTRAL:
        return "it requests no change"
    if signal.claim.direction is Direction.SELL:
        if symbol not in members:
            return f"{symbol} is not a member"
        if context.controls.is_pinned(symbol):
            return f"{symbol} is pinned"
        return MembershipStep(MembershipMove.REMOVE, symbol)
    if symbol in members:
        return f"{symbol} is a member already"
    if len(members) < context.configuration.max_portfolio_symbols:
        refused = _refusal_reason(symbol, members, context)
        return MembershipStep(MembershipMove.ADD, symbol) if refused is None else refused
    return await _plan_replacement(symbol, portfolio, context, unit)


async def _plan_replacement(
    symbol: str, portfolio: Portfolio, context: DecisionContext, unit: UnitOfWork
) -> MembershipStep | str:
    """Replacement of the weakest member, if the gain exceeds noise and cost."""
    names = [
        name
        for name in weakest(portfolio, context)
        if not context.controls.is_pinned(name) and not context.is_paused(name)
    ]
    if not names:
        return "the portfolio is full, and no member may be replaced"
    old = names[0]
    holding_times = {
        member.symbol: context.since(member.included_at) for member in portfolio.members
    }
    others = tuple(symbol for symbol in holding_times if symbol != old)
    refused = _refusal_reason(symbol, others, context)
    if refused is not None:
        return refused
    rules = context.configuration.replacement
    noise = known_noises((old, symbol), context)
    last = await unit.get(ReplacementRepository).last_swap()
    decision = propose_replacement(
        OutgoingMember(describe_symbol(old, context), holding_times[old], None, is_pinned=False),
        describe_symbol(symbol, context),
        noise,
        None,
        None if last is None else context.since(last),
        rules,
    )
    blocks = [block.value for block in decision.blocked_by if block not in _WAIVED]
    if blocks:
        return f"{symbol} does not replace {old}: {', '.join(blocks)}"
    return MembershipStep(MembershipMove.REPLACE, symbol, old)


def _refusal_reason(symbol: str, others: tuple[str, ...], context: DecisionContext) -> str | None:
    days = context.configuration.correlation.addition_days
    refused = find_refusal(
        context.candidate(symbol),
        others,
        correlation_of((symbol, *others), context, days),
        context.configuration,
        map(context.sector, others),
    )
    return None if refused is None else f"{symbol} cannot be added: {refused.reason.value}"


Prepare = Callable[[], Awaitable[None]]
InTransaction = Callable[[UnitOfWork, int], Awaitable[None]]
StepResult = CommandResult[MemberView] | CommandResult[RemoveResult] | CommandResult[ReplaceResult]


async def execute_step(
    portfolio: PortfolioService,
    step: MembershipStep,
    reason: str,
    command: Command,
    prepare: Prepare,
    in_transaction: InTransaction,
    render: Render[Any] | None = None,
) -> StepResult:
    """Changes the portfolio, with `in_transaction` in the same transaction; raises its errors."""

    async def finish(unit: UnitOfWork, result: MemberView | RemoveResult | ReplaceResult) -> None:
        await in_transaction(unit, result.version)

    hooks: TransactionHooks[Any] = TransactionHooks(prepare, finish)
    if step.move is MembershipMove.ADD:
        return await portfolio.add(step.symbol, reason, command, render, hooks)
    if step.move is MembershipMove.REMOVE:
        return await portfolio.remove(
            step.symbol, reason, command, render, TransactionHooks(prepare, finish)
        )
    old = step.old_symbol or ""
    return await portfolio.replace(
        old, step.symbol, reason, command, render, TransactionHooks(prepare, finish)
    )


async def mark_applied(unit: UnitOfWork, signal_id: str, version: int, at: datetime) -> None:
    """Marks a signal as applied in `version` of the portfolio.

    Raises ConflictError(invalid_state_transition) for a signal that is not approved.
    """
    evaluated = await unit.get(SignalRepository).one(signal_id)
    signal = evaluated.signal.transition_to(
        SignalState.APPLIED, f"version {version} of the portfolio"
    )
    applied = replace(evaluated, signal=signal)
    await unit.get(SignalRepository).save([applied])
    publish_signals(unit, [applied], at)


def step_from_action(action: Mapping[str, Any]) -> MembershipStep:
    """Returns the membership change stored in a proposal."""
    return MembershipStep(MembershipMove(action["move"]), action["symbol"], action["old_symbol"])


def create_proposal(
    proposal_id: str,
    evaluated: EvaluatedSignal,
    step: MembershipStep,
    version: int,
    context: DecisionContext,
    ttl: timedelta,
) -> Proposal:
    """Creates the proposal of a signal's change; it expires with the signal at the latest."""
    verdict = evaluated.verdict
    evaluation = None if verdict is None else verdict.evaluation
    action = {
        "signal_id": evaluated.signal.signal_id,
        "move": step.move.value,
        "symbol": step.symbol,
        "old_symbol": step.old_symbol,
        "new_symbol": None if step.move is MembershipMove.REMOVE else step.symbol,
        "evaluation": None if evaluation is None else evaluation.value,
        "score": None if verdict is None else verdict.score,
    }
    return Proposal(
        proposal_id=proposal_id,
        kind=ProposalKind.SIGNAL,
        subject=step.symbol,
        state=ProposalState.OPEN,
        version=version,
        reason=format_reason(evaluated),
        action=action,
        opened_at=context.at,
        expires_at=min(context.at + ttl, evaluated.signal.expires_at),
        proposed_by=evaluated.signal.posted_by,
    )


@dataclass(frozen=True, slots=True)
class SignalProposalExecutor:
    """Executes approved proposals of signals."""

    portfolio: PortfolioService
    clock: Clock

    async def __call__(self, approval: Approval) -> StepResult:
        """Changes the portfolio; signal, effect and proposal end in the same transaction."""
        action = approval.proposal.action

        async def finish(unit: UnitOfWork, version: int) -> None:
            signal_id = action["signal_id"]
            await unit.get(SignalEffectRepository).set_version(signal_id, version)
            await mark_applied(unit, signal_id, version, self.clock())
            await approval.end(unit, None, version)

        reason = f"{approval.reason} ({approval.proposal.reason})"[:500]
        return await execute_step(
            self.portfolio,
            step_from_action(action),
            reason,
            approval.command,
            approval.ready,
            finish,
            approval.render,
        )


BATCH: Final = 20
_ACTOR: Final = "signals"
_KINDS: Final = (ProposalKind.SIGNAL,)


async def _no_preparation() -> None:
    """Preparation that does nothing."""


@dataclass(frozen=True, slots=True)
class AutomaticStep:
    """A membership change that automation executes without a proposal."""

    evaluated: EvaluatedSignal
    step: MembershipStep
    version: int  # of the portfolio at the decision


@dataclass(frozen=True, slots=True)
class SignalActions:
    """Applies approved signals, each once: its effect is stored in the same transaction."""

    database: Database
    contexts: DecisionContextFactory
    portfolio: PortfolioService
    new_id: NewId
    _mark: CommitMark = field(default_factory=CommitMark, init=False)

    async def apply_approved(self) -> int:
        """Applies, proposes or records approved signals without an effect; returns their number."""
        if self._mark.is_newest(self.database):
            return 0
        now, commits = self.contexts.clock(), self.database.commits
        async with self.database.read() as unit:
            waiting = await unit.get(SignalEffectRepository).waiting(now, BATCH)
        if not waiting:
            self._mark.move(commits)
        for signal_id in waiting:
            with self.contexts.refusals.counted(CountedDecision.SIGNAL):
                automatic = await self.database.run(self._decision(signal_id))
            if automatic is not None:
                await self._execute(automatic)
        return len(waiting)

    def _decision(self, signal_id: str) -> Callable[[UnitOfWork], Awaitable[AutomaticStep | None]]:
        async def decide(unit: UnitOfWork) -> AutomaticStep | None:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            if await unit.get(SignalEffectRepository).load([signal_id]):
                return None  # another process has decided
            context = await self.contexts.of(unit)
            context.require_fresh_members(portfolio)
            evaluated = await unit.get(SignalRepository).one(signal_id)
            if evaluated.verdict is None:
                return None
            rules = context.configuration.signals
            automation = automation_for(evaluated.signal, evaluated.verdict, rules)
            step = await plan_step(evaluated.signal, portfolio, context, unit)
            if isinstance(step, str):
                effect = SignalEffect(signal_id, automation, None, step, context.at)
            elif automation is AutomationMode.AUTO:
                return AutomaticStep(evaluated, step, portfolio.version)
            elif automation is AutomationMode.PROPOSE:
                proposal = await self._propose(unit, evaluated, step, portfolio.version, context)
                effect = SignalEffect(
                    signal_id, automation, step, None, context.at, proposal.proposal_id
                )
            else:
                effect = SignalEffect(signal_id, automation, step, "only observed", context.at)
            await unit.get(SignalEffectRepository).add(effect)
            return None

        return decide

    async def _propose(
        self,
        unit: UnitOfWork,
        evaluated: EvaluatedSignal,
        step: MembershipStep,
        version: int,
        context: DecisionContext,
    ) -> Proposal:
        """Opens a proposal, which supersedes older ones about the same symbol."""
        for old in await unit.get(ProposalRepository).all_open(_KINDS):
            if old.subject == step.symbol:
                decision = Decision(context.at, "schedule", "superseded by a newer signal")
                current = old.at(context.now_after(old.opened_at))
                is_open = current.state is ProposalState.OPEN
                await close_proposal(
                    unit, current.ended(ProposalState.SUPERSEDED, decision) if is_open else current
                )
        ttl = timedelta(seconds=context.configuration.automation.proposal_ttl_s)
        proposal = create_proposal(self.new_id(), evaluated, step, version, context, ttl)
        await unit.get(ProposalRepository).open(proposal)
        unit.publish_after_commit(proposal_opened(proposal, context.at))
        return proposal

    async def _execute(self, automatic: AutomaticStep) -> None:
        """Executes the ordinary use case; a refusal is stored as the effect, without a retry."""
        command = Command(_ACTOR, self.new_id(), if_match=automatic.version)
        signal_id = automatic.evaluated.signal.signal_id
        reason = format_reason(automatic.evaluated)

        async def store_effect(unit: UnitOfWork, version: int) -> None:
            now = self.contexts.clock()
            effect = SignalEffect(
                signal_id, AutomationMode.AUTO, automatic.step, None, now, version=version
            )
            await unit.get(SignalEffectRepository).add(effect)
            await mark_applied(unit, signal_id, version, now)

        try:
            await execute_step(
                self.portfolio, automatic.step, reason, command, _no_preparation, store_effect
            )
        except PreconditionFailedError:
            return  # the portfolio has changed, so the next run decides again
        except (RefusedError, ConflictError) as error:
            now = self.contexts.clock()
            failed = SignalEffect(
                signal_id, AutomationMode.AUTO, automatic.step, f"{error.code}: {error.detail}", now
            )
            async with self.database.write() as unit:
                await unit.get(PortfolioRepository).load(for_update=True)
                if not await unit.get(SignalEffectRepository).load([signal_id]):
                    await unit.get(SignalEffectRepository).add(failed)
