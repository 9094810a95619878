"""Opens and closes proposals; a proposal without a current recommendation is superseded."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, Final

from app.foundation.sql.database import UnitOfWork
from app.portfolio.domain.events import ProposalDecided, proposal_opened
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import WHOLE, Decision, Proposal, ProposalKind, ProposalState
from app.portfolio.domain.replacement import ReplacementProposal
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.rebalance_runs import RebalanceDecision
from app.portfolio.storage.proposals import ProposalRepository

_BY: Final = "schedule"


async def sync_open_proposals(
    unit: UnitOfWork,
    kinds: Collection[ProposalKind],
    wanted: Sequence[Proposal],
    context: DecisionContext,
) -> tuple[Proposal, ...]:
    """Open the `wanted` proposals, supersede all others of these kinds, and return the open ones.

    An equal proposal that is still open stays, so that operators decide once. To be
    called under the portfolio's lock.
    """
    kept, at = list[Proposal](), context.at
    for stored in await unit.get(ProposalRepository).all_open(kinds):
        old = stored.at(context.now_after(stored.opened_at))
        if old.state is ProposalState.OPEN and any(old.is_same(new) for new in wanted):
            kept.append(old)
            continue
        if old.state is ProposalState.OPEN:
            reason = "the portfolio or the recommendation is another one by now"
            old = old.ended(ProposalState.SUPERSEDED, Decision(at, _BY, reason))
        await close_proposal(unit, old)
    fresh = [new for new in wanted if not any(new.is_same(old) for old in kept)]
    for new in fresh:
        await unit.get(ProposalRepository).open(new)
        unit.publish_after_commit(proposal_opened(new, at))
    return (*kept, *fresh)


async def close_proposal(unit: UnitOfWork, ended: Proposal) -> bool:
    """Store and publish the decision on a proposal; False if one exists already."""
    if ended.decision is None or not await unit.get(ProposalRepository).decide(ended):
        return False
    unit.publish_after_commit(
        ProposalDecided(
            ended.proposal_id,
            ended.kind.value,
            ended.subject,
            ended.state.value,
            ended.decision.by,
            ended.decision.at,
        )
    )
    return True


def proposal_from_plan(
    proposal_id: str,
    run_id: str | None,
    planned: RebalanceDecision,
    before: Portfolio,
    context: DecisionContext,
) -> Proposal:
    """Proposal of a rebalance plan, with all inputs that its later execution needs."""
    made, allocation = planned.plan, planned.plan.allocation
    seen = context.at_current_prices(before).members
    triggers = [trigger.value for trigger in made.triggers]
    action = {
        "changes": [asdict(change) for change in made.changes],
        "triggers": triggers,
        "turnover_u": made.turnover_u,
        "cost": planned.cost,
        "weights_u": dict(allocation.weights_u),
        "cash_u": allocation.cash_u,
        "flags": [flag.value for flag in allocation.flags],
        "seen_u": {member.symbol: member.weight_u for member in seen},
        # Weight difference below which drift does not trigger.
        "tolerance_u": context.configuration.rebalance_threshold_u,
    }
    kind = ProposalKind.REBALANCE
    proposal = _proposal(proposal_id, kind, WHOLE, before.version, action, context)
    return replace(proposal, reason=", ".join(triggers), run_id=run_id)


def proposal_from_replacement(
    proposal_id: str, swap: ReplacementProposal, version: int, context: DecisionContext
) -> Proposal:
    """Proposal to replace a member. Raises ValueError without a candidate."""
    old, new = swap.outgoing.side, swap.candidate
    if new is None:
        raise ValueError(f"no candidate may replace {old.symbol}")
    action = {
        "old_symbol": old.symbol,
        "new_symbol": new.symbol,
        "old_score": old.score,
        "new_score": new.score,
        "improvement_z": swap.comparison.improvement,
        "threshold_z": swap.threshold,
        "strength": swap.strength,
        "confirmations": swap.confirmations,
        "forced": swap.outgoing.forced,
    }
    kind = ProposalKind.REPLACEMENT
    return _proposal(proposal_id, kind, old.symbol, version, action, context)


def _proposal(
    proposal_id: str,
    kind: ProposalKind,
    subject: str,
    version: int,
    action: dict[str, Any],
    context: DecisionContext,
) -> Proposal:
    lasts = timedelta(seconds=context.configuration.automation.proposal_ttl_s)
    return Proposal(
        proposal_id=proposal_id,
        kind=kind,
        subject=subject,
        state=ProposalState.OPEN,
        version=version,
        reason=action.get("forced") or "a better symbol, confirmed",
        action=action,
        opened_at=context.at,
        expires_at=context.at + lasts,
    )
