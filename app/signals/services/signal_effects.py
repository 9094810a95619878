"""Carrying out what a signal asks for, by the use case that everybody uses, and marking it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.foundation.idempotency import Along, Command, Outcome, Render
from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.domain.proposals import Proposal, ProposalKind, ProposalState
from app.portfolio.services.decision_context import Grounds
from app.portfolio.services.member_views import MemberView
from app.portfolio.services.membership import PortfolioService, Removed, Replaced
from app.signals.domain.evaluated_signal import Judged
from app.signals.domain.models import SignalState
from app.signals.domain.signal_action import reason_of
from app.signals.domain.signal_effect import Move, Step
from app.signals.services.signal_news import tell

Ready = Callable[[], Awaitable[None]]
Within = Callable[[UnitOfWork, int], Awaitable[None]]
Changed = Outcome[MemberView] | Outcome[Removed] | Outcome[Replaced]


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

    if step.move is Move.ADD:
        return await portfolio.add(step.symbol, reason, who, render, Along(ready, ends))
    if step.move is Move.REMOVE:
        return await portfolio.remove(step.symbol, reason, who, render, Along(ready, ends))
    old = step.old_symbol or ""
    return await portfolio.replace(old, step.symbol, reason, who, render, Along(ready, ends))


async def applied(unit: UnitOfWork, signal_id: str, version: int, at: datetime) -> None:
    """The signal has led to this version of the portfolio.

    Raises ConflictError(invalid_state_transition) for one that is not approved.
    """
    judged = await unit.signals.one(signal_id)
    signal = judged.signal.to(SignalState.APPLIED, f"version {version} of the portfolio")
    done = replace(judged, signal=signal)
    await unit.signals.save([done])
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
