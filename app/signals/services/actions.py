"""Approved signals become proposals or changes of the portfolio, each at most once."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from app.configuration.domain.sections import AutomationMode
from app.foundation.errors import ConflictError, PreconditionFailedError, RefusedError
from app.foundation.idempotency import Command, CommandResult, Render, TransactionHooks
from app.foundation.ports import NewId
from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.domain.candidate_selection import refuse
from app.portfolio.domain.events import ProposalOpened
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import Decision, Proposal, ProposalKind, ProposalState
from app.portfolio.domain.replacement import Block, Leaver, propose
from app.portfolio.services.decision_context import Grounds, GroundsNow
from app.portfolio.services.member_views import MemberView, weakest
from app.portfolio.services.membership import PortfolioService, Removed, Replaced
from app.portfolio.services.proposal_book import close
from app.portfolio.services.replacement import noises
from app.portfolio.services.replacement_candidates import contender, correlation_of
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.proposals import ProposalRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.signals.domain.evaluated_signal import Judged
from app.signals.domain.models import Direction, Effect, Move, Signal, SignalState, Step
from app.signals.domain.signal_action import policy_for, reason_of
from app.signals.services.signal_news import tell
from app.signals.storage.signals import SignalEffectRepository, SignalRepository

# A signal stands in the place of having been found better on several boards.
_WAIVED = frozenset({Block.UNCONFIRMED})


async def step_of(
    signal: Signal, portfolio: Portfolio, grounds: Grounds, unit: UnitOfWork
) -> Step | str:
    """The change, or why there is none."""
    symbol = signal.claim.symbol
    members = tuple(member.symbol for member in portfolio.members)
    if symbol is None or signal.claim.direction is Direction.NEUTRAL:
        return "it asks for nothing"
    if signal.claim.direction is Direction.SELL:
        if symbol not in members:
            return f"{symbol} is not a member"
        if grounds.controls.is_pinned(symbol):
            return f"{symbol} is pinned"
        return Step(Move.REMOVE, symbol)
    if symbol in members:
        return f"{symbol} is a member already"
    if len(members) < grounds.configuration.max_portfolio_symbols:
        refused = _refused(symbol, members, grounds)
        return Step(Move.ADD, symbol) if refused is None else refused
    return await _swap(symbol, portfolio, grounds, unit)


async def _swap(
    symbol: str, portfolio: Portfolio, grounds: Grounds, unit: UnitOfWork
) -> Step | str:
    """In the place of the weakest member, if it is better by more than noise and cost."""
    names = [
        one
        for one in weakest(portfolio, grounds)
        if not grounds.controls.is_pinned(one) and not grounds.is_paused(one)
    ]
    if not names:
        return "the portfolio is full, and nobody may be replaced"
    old = names[0]
    held = {member.symbol: grounds.since(member.included_at) for member in portfolio.members}
    others = tuple(one for one in held if one != old)
    refused = _refused(symbol, others, grounds)
    if refused is not None:
        return refused
    rules = grounds.configuration.replacement
    noise = noises((old, symbol), grounds)
    last = await unit.get(ReplacementRepository).last_swap()
    found = propose(
        Leaver(contender(old, grounds), held[old], None, is_pinned=False),
        contender(symbol, grounds),
        noise,
        None,
        None if last is None else grounds.since(last),
        rules,
    )
    blocks = [block.value for block in found.blocked_by if block not in _WAIVED]
    if blocks:
        return f"{symbol} does not replace {old}: {', '.join(blocks)}"
    return Step(Move.REPLACE, symbol, old)


def _refused(symbol: str, others: tuple[str, ...], grounds: Grounds) -> str | None:
    days = grounds.configuration.correlation.addition_days
    refused = refuse(
        grounds.candidate(symbol),
        others,
        correlation_of((symbol, *others), grounds, days),
        grounds.configuration,
        map(grounds.sector, others),
    )
    return None if refused is None else f"{symbol} may not come in: {refused.reason.value}"


Ready = Callable[[], Awaitable[None]]
Within = Callable[[UnitOfWork, int], Awaitable[None]]
Changed = CommandResult[MemberView] | CommandResult[Removed] | CommandResult[Replaced]


async def carried_out(
    portfolio: PortfolioService,
    step: Step,
    reason: str,
    who: Command,
    ready: Ready,
    within: Within,
    render: Render[Any] | None = None,
) -> Changed:
    """One version of the portfolio, `within` in the same transaction. Raises as that does."""

    async def ends(unit: UnitOfWork, done: MemberView | Removed | Replaced) -> None:
        await within(unit, done.version)

    hooks: TransactionHooks[Any] = TransactionHooks(ready, ends)
    if step.move is Move.ADD:
        return await portfolio.add(step.symbol, reason, who, render, hooks)
    if step.move is Move.REMOVE:
        return await portfolio.remove(
            step.symbol, reason, who, render, TransactionHooks(ready, ends)
        )
    old = step.old_symbol or ""
    return await portfolio.replace(
        old, step.symbol, reason, who, render, TransactionHooks(ready, ends)
    )


async def applied(unit: UnitOfWork, signal_id: str, version: int, at: datetime) -> None:
    """The signal has led to this version of the portfolio.

    Raises ConflictError(invalid_state_transition) for one that is not approved.
    """
    judged = await unit.get(SignalRepository).one(signal_id)
    signal = judged.signal.to(SignalState.APPLIED, f"version {version} of the portfolio")
    done = replace(judged, signal=signal)
    await unit.get(SignalRepository).save([done])
    tell(unit, [done], at)


def step_in(action: Mapping[str, Any]) -> Step:
    """The change that a proposal keeps."""
    return Step(Move(action["move"]), action["symbol"], action["old_symbol"])


def proposal_of(
    proposal_id: str, judged: Judged, step: Step, version: int, grounds: Grounds, lasts: timedelta
) -> Proposal:
    """The proposal to do what a signal asks for; it is over when the signal is."""
    verdict = judged.verdict
    evaluation = None if verdict is None else verdict.evaluation
    action = {
        "signal_id": judged.signal.signal_id,
        "move": step.move.value,
        "symbol": step.symbol,
        "old_symbol": step.old_symbol,
        "new_symbol": None if step.move is Move.REMOVE else step.symbol,
        "evaluation": None if evaluation is None else evaluation.value,
        "score": None if verdict is None else verdict.score,
    }
    return Proposal(
        proposal_id=proposal_id,
        kind=ProposalKind.SIGNAL,
        subject=step.symbol,
        state=ProposalState.OPEN,
        version=version,
        reason=reason_of(judged),
        action=action,
        opened_at=grounds.at,
        expires_at=min(grounds.at + lasts, judged.signal.expires_at),
    )


BATCH: Final = 20
_ACTOR: Final = "signals"
_KINDS: Final = (ProposalKind.SIGNAL,)


async def _at_once() -> None:
    """Nothing has to be looked at before the transaction."""


@dataclass(frozen=True, slots=True)
class Due:
    """A change that the policy lets happen by itself."""

    judged: Judged
    step: Step
    version: int  # of the portfolio that it was decided on


@dataclass(frozen=True, slots=True)
class SignalActions:
    """Every effect is on record in the transaction that makes it: a crash repeats nothing."""

    database: Database
    grounds: GroundsNow
    portfolio: PortfolioService
    new_id: NewId

    async def act(self) -> int:
        """See to all approved signals that nothing has been done about; how many there were."""
        now = self.grounds.clock()
        async with self.database.read() as unit:
            waiting = await unit.get(SignalEffectRepository).waiting(now, BATCH)
        for signal_id in waiting:
            with self.grounds.refusals.counted():
                due = await self.database.run(self._deciding(signal_id))
            if due is not None:
                await self._carry_out(due)
        return len(waiting)

    def _deciding(self, signal_id: str) -> Callable[[UnitOfWork], Awaitable[Due | None]]:
        async def decide(unit: UnitOfWork) -> Due | None:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            if await unit.get(SignalEffectRepository).of([signal_id]):
                return None  # another process was first
            grounds = await self.grounds.of(unit)
            grounds.require_fresh_members(portfolio)
            judged = await unit.get(SignalRepository).one(signal_id)
            if judged.verdict is None:
                return None
            rules = grounds.configuration.signals
            policy = policy_for(judged.signal, judged.verdict, rules)
            step = await step_of(judged.signal, portfolio, grounds, unit)
            if isinstance(step, str):
                effect = Effect(signal_id, policy, None, step, grounds.at)
            elif policy is AutomationMode.AUTO:
                return Due(judged, step, portfolio.version)
            elif policy is AutomationMode.PROPOSE:
                made = await self._propose(unit, judged, step, portfolio.version, grounds)
                effect = Effect(signal_id, policy, step, None, grounds.at, made.proposal_id)
            else:
                effect = Effect(signal_id, policy, step, "only observed", grounds.at)
            await unit.get(SignalEffectRepository).add(effect)
            return None

        return decide

    async def _propose(
        self, unit: UnitOfWork, judged: Judged, step: Step, version: int, grounds: Grounds
    ) -> Proposal:
        """A newer signal about the same symbol takes the place of an older proposal."""
        for old in await unit.get(ProposalRepository).all_open(_KINDS):
            if old.subject == step.symbol:
                said = Decision(grounds.at, "schedule", "a newer signal asks for it")
                now = old.at(grounds.at)
                is_open = now.state is ProposalState.OPEN
                await close(unit, now.ended(ProposalState.SUPERSEDED, said) if is_open else now)
        lasts = timedelta(seconds=grounds.configuration.automation.proposal_ttl_s)
        made = proposal_of(self.new_id(), judged, step, version, grounds, lasts)
        await unit.get(ProposalRepository).open(made)
        unit.announce(
            ProposalOpened(
                made.proposal_id, made.kind.value, made.subject, version, made.expires_at,
                grounds.at,
            )
        )  # fmt: skip
        return made

    async def _carry_out(self, due: Due) -> None:
        """By the ordinary use case; what that refuses is noted and not tried again."""
        who = Command(_ACTOR, self.new_id(), if_match=due.version)
        signal_id = due.judged.signal.signal_id

        async def within(unit: UnitOfWork, version: int) -> None:
            now = self.grounds.clock()
            made = Effect(signal_id, AutomationMode.AUTO, due.step, None, now, version=version)
            await unit.get(SignalEffectRepository).add(made)
            await applied(unit, signal_id, version, now)

        try:
            await carried_out(
                self.portfolio, due.step, reason_of(due.judged), who, _at_once, within
            )
        except PreconditionFailedError:
            return  # the portfolio is another by now: the next look decides anew
        except (RefusedError, ConflictError) as error:
            now = self.grounds.clock()
            failed = Effect(
                signal_id, AutomationMode.AUTO, due.step, f"{error.code}: {error.detail}", now
            )
            async with self.database.write() as unit:
                await unit.get(PortfolioRepository).load(for_update=True)
                if not await unit.get(SignalEffectRepository).of([signal_id]):
                    await unit.get(SignalEffectRepository).add(failed)
