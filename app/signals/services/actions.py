"""Approved signals become proposals or changes of the portfolio, each at most once."""

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
from app.portfolio.domain.events import ProposalOpened
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import (
    Decision,
    MembershipMove,
    Proposal,
    ProposalKind,
    ProposalState,
)
from app.portfolio.domain.replacement import OutgoingMember, ReplacementBlock, propose_replacement
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.membership import PortfolioService, RemoveResult, ReplaceResult
from app.portfolio.services.proposal_book import close_proposal
from app.portfolio.services.proposals import Approval
from app.portfolio.services.replacement import known_noises
from app.portfolio.services.replacement_candidates import correlation_of, describe_symbol
from app.portfolio.services.views import MemberView, weakest
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.proposals import ProposalRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.signals.domain.evaluated_signal import EvaluatedSignal, format_reason, policy_for
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
    """Membership change of a signal, or the reason for none."""
    symbol = signal.claim.symbol
    members = tuple(member.symbol for member in portfolio.members)
    if symbol is None or signal.claim.direction is Direction.NEUTRAL:
        return "it asks for nothing"
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
        one
        for one in weakest(portfolio, context)
        if not context.controls.is_pinned(one) and not context.is_paused(one)
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
    return None if refused is None else f"{symbol} may not come in: {refused.reason.value}"


Ready = Callable[[], Awaitable[None]]
Within = Callable[[UnitOfWork, int], Awaitable[None]]
Changed = CommandResult[MemberView] | CommandResult[RemoveResult] | CommandResult[ReplaceResult]


async def execute_step(
    portfolio: PortfolioService,
    step: MembershipStep,
    reason: str,
    who: Command,
    ready: Ready,
    within: Within,
    render: Render[Any] | None = None,
) -> Changed:
    """Create one version of the portfolio, `within` in the same transaction; raises its errors."""

    async def ends(unit: UnitOfWork, done: MemberView | RemoveResult | ReplaceResult) -> None:
        await within(unit, done.version)

    hooks: TransactionHooks[Any] = TransactionHooks(ready, ends)
    if step.move is MembershipMove.ADD:
        return await portfolio.add(step.symbol, reason, who, render, hooks)
    if step.move is MembershipMove.REMOVE:
        return await portfolio.remove(
            step.symbol, reason, who, render, TransactionHooks(ready, ends)
        )
    old = step.old_symbol or ""
    return await portfolio.replace(
        old, step.symbol, reason, who, render, TransactionHooks(ready, ends)
    )


async def mark_applied(unit: UnitOfWork, signal_id: str, version: int, at: datetime) -> None:
    """Mark a signal as applied in this version of the portfolio.

    Raises ConflictError(invalid_state_transition) for one that is not approved.
    """
    judged = await unit.get(SignalRepository).one(signal_id)
    signal = judged.signal.to(SignalState.APPLIED, f"version {version} of the portfolio")
    done = replace(judged, signal=signal)
    await unit.get(SignalRepository).save([done])
    publish_signals(unit, [done], at)


def step_from_action(action: Mapping[str, Any]) -> MembershipStep:
    """Membership change stored in a proposal."""
    return MembershipStep(MembershipMove(action["move"]), action["symbol"], action["old_symbol"])


def make_proposal(
    proposal_id: str,
    judged: EvaluatedSignal,
    step: MembershipStep,
    version: int,
    context: DecisionContext,
    lasts: timedelta,
) -> Proposal:
    """Proposal of the change of a signal; it expires with the signal at the latest."""
    verdict = judged.verdict
    evaluation = None if verdict is None else verdict.evaluation
    action = {
        "signal_id": judged.signal.signal_id,
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
        reason=format_reason(judged),
        action=action,
        opened_at=context.at,
        expires_at=min(context.at + lasts, judged.signal.expires_at),
    )


@dataclass(frozen=True, slots=True)
class ProposedSignals:
    """Executes approved proposals that a signal led to."""

    portfolio: PortfolioService
    clock: Clock

    async def __call__(self, approval: Approval) -> Changed:
        """Changes the portfolio; signal, effect and proposal end in the same transaction."""
        action = approval.proposal.action

        async def signal_ends(unit: UnitOfWork, version: int) -> None:
            signal_id = action["signal_id"]
            await unit.get(SignalEffectRepository).carried_out(signal_id, version)
            await mark_applied(unit, signal_id, version, self.clock())
            await approval.end(unit, None, version)

        why = f"{approval.reason} ({approval.proposal.reason})"[:500]
        return await execute_step(
            self.portfolio,
            step_from_action(action),
            why,
            approval.command,
            approval.ready,
            signal_ends,
            approval.render,
        )


BATCH: Final = 20
_ACTOR: Final = "signals"
_KINDS: Final = (ProposalKind.SIGNAL,)


async def _no_preparation() -> None:
    """Preparation that does nothing."""


@dataclass(frozen=True, slots=True)
class Due:
    """A change that the policy lets happen by itself."""

    judged: EvaluatedSignal
    step: MembershipStep
    version: int  # of the portfolio at the decision


@dataclass(frozen=True, slots=True)
class SignalActions:
    """Applies approved signals; each effect is stored in its own transaction, so it acts once."""

    database: Database
    contexts: DecisionContextFactory
    portfolio: PortfolioService
    new_id: NewId
    _mark: CommitMark = field(default_factory=CommitMark, init=False)

    async def act(self) -> int:
        """Apply, propose or note all approved signals without an effect; returns their number."""
        if self._mark.is_newest(self.database):
            return 0
        now, commits = self.contexts.clock(), self.database.commits
        async with self.database.read() as unit:
            waiting = await unit.get(SignalEffectRepository).waiting(now, BATCH)
        if not waiting:
            self._mark.move(commits)
        for signal_id in waiting:
            with self.contexts.refusals.counted():
                due = await self.database.run(self._deciding(signal_id))
            if due is not None:
                await self._carry_out(due)
        return len(waiting)

    def _deciding(self, signal_id: str) -> Callable[[UnitOfWork], Awaitable[Due | None]]:
        async def decide(unit: UnitOfWork) -> Due | None:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            if await unit.get(SignalEffectRepository).of([signal_id]):
                return None  # another process was first
            context = await self.contexts.of(unit)
            context.require_fresh_members(portfolio)
            judged = await unit.get(SignalRepository).one(signal_id)
            if judged.verdict is None:
                return None
            rules = context.configuration.signals
            policy = policy_for(judged.signal, judged.verdict, rules)
            step = await plan_step(judged.signal, portfolio, context, unit)
            if isinstance(step, str):
                effect = SignalEffect(signal_id, policy, None, step, context.at)
            elif policy is AutomationMode.AUTO:
                return Due(judged, step, portfolio.version)
            elif policy is AutomationMode.PROPOSE:
                made = await self._propose(unit, judged, step, portfolio.version, context)
                effect = SignalEffect(signal_id, policy, step, None, context.at, made.proposal_id)
            else:
                effect = SignalEffect(signal_id, policy, step, "only observed", context.at)
            await unit.get(SignalEffectRepository).add(effect)
            return None

        return decide

    async def _propose(
        self,
        unit: UnitOfWork,
        judged: EvaluatedSignal,
        step: MembershipStep,
        version: int,
        context: DecisionContext,
    ) -> Proposal:
        """Open a proposal; it supersedes an older one about the same symbol."""
        for old in await unit.get(ProposalRepository).all_open(_KINDS):
            if old.subject == step.symbol:
                said = Decision(context.at, "schedule", "a newer signal asks for it")
                now = old.at(context.at)
                is_open = now.state is ProposalState.OPEN
                await close_proposal(
                    unit, now.ended(ProposalState.SUPERSEDED, said) if is_open else now
                )
        lasts = timedelta(seconds=context.configuration.automation.proposal_ttl_s)
        made = make_proposal(self.new_id(), judged, step, version, context, lasts)
        await unit.get(ProposalRepository).open(made)
        unit.announce(
            ProposalOpened(
                made.proposal_id, made.kind.value, made.subject, version, made.expires_at,
                context.at,
            )
        )  # fmt: skip
        return made

    async def _carry_out(self, due: Due) -> None:
        """Run the ordinary use case; store its refusal, without a retry."""
        who = Command(_ACTOR, self.new_id(), if_match=due.version)
        signal_id = due.judged.signal.signal_id

        async def within(unit: UnitOfWork, version: int) -> None:
            now = self.contexts.clock()
            made = SignalEffect(
                signal_id, AutomationMode.AUTO, due.step, None, now, version=version
            )
            await unit.get(SignalEffectRepository).add(made)
            await mark_applied(unit, signal_id, version, now)

        try:
            await execute_step(
                self.portfolio, due.step, format_reason(due.judged), who, _no_preparation, within
            )
        except PreconditionFailedError:
            return  # the portfolio has changed: the next run decides again
        except (RefusedError, ConflictError) as error:
            now = self.contexts.clock()
            failed = SignalEffect(
                signal_id, AutomationMode.AUTO, due.step, f"{error.code}: {error.detail}", now
            )
            async with self.database.write() as unit:
                await unit.get(PortfolioRepository).load(for_update=True)
                if not await unit.get(SignalEffectRepository).of([signal_id]):
                    await unit.get(SignalEffectRepository).add(failed)
