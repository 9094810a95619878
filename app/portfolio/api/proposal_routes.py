"""Routes of proposals and the decisions on them."""

from typing import Annotated, Any, Self

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.dependencies import CommandDep, CursorsDep, Provided, by
from app.foundation.http.errors import problems
from app.foundation.http.pagination import Page, cut, moment_and_id
from app.foundation.http.permissions import requires
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    DECIDES,
    DEFAULT_REASON,
    ChangeRequest,
    CursorText,
    IdPath,
    Limit,
    Out,
    Percent,
    PercentPoints,
    Score,
    Share,
    UtcTime,
    ZScore,
    percent,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role
from app.portfolio.domain.proposals import (
    Decision,
    MembershipMove,
    Proposal,
    ProposalKind,
    ProposalState,
)
from app.portfolio.services.proposals import ProposalService

router = api_router("portfolio", "/portfolio/proposals")
_DECIDED = (Code.NOT_FOUND, Code.INVALID_STATE_TRANSITION, *CHANGES)


class ProposedChangeOut(Out):
    symbol: str
    old: Percent
    new: Percent
    change: PercentPoints = Field(description="Percentage points.")
    action: str = Field(examples=["enter", "exit", "increase", "decrease"])
    reason: str


class ProposedRebalanceOut(Out):
    """Plan that an approval executes while it is valid."""

    changes: list[ProposedChangeOut] = Field(description="Weights that would change.")
    triggers: list[str] = Field(examples=[["drift"]])
    turnover: PercentPoints = Field(description="Sum of the absolute changes, percentage points.")
    estimated_cost: Share | None = Field(description="Of equity; null if unknown.")

    @classmethod
    def of(cls, action: Any) -> Self:
        return cls(
            changes=[
                ProposedChangeOut(
                    symbol=one["symbol"],
                    old=percent(one["old_u"]),
                    new=percent(one["new_u"]),
                    change=percent(one["new_u"] - one["old_u"]),
                    action=one["action"],
                    reason=one["reason"],
                )
                for one in action["changes"]
            ],
            triggers=action["triggers"],
            turnover=percent(action["turnover_u"]),
            estimated_cost=action["cost"],
        )


class ProposedReplacementOut(Out):
    replace_symbol: str
    candidate_symbol: str
    replace_score: Score | None
    candidate_score: Score | None
    improvement_z: ZScore | None = Field(
        description="Composite z of the candidate minus that of the member."
    )
    threshold_z: ZScore | None = Field(
        description="Improvement that the costs and the noise require."
    )
    recommendation_strength: Score | None
    confirmations: int
    forced_reason: str | None = Field(description="Reason that the member cannot stay.")

    @classmethod
    def of(cls, action: Any) -> Self:
        return cls(
            replace_symbol=action["old_symbol"],
            candidate_symbol=action["new_symbol"],
            replace_score=action["old_score"],
            candidate_score=action["new_score"],
            improvement_z=action["improvement_z"],
            threshold_z=action["threshold_z"],
            recommendation_strength=action["strength"],
            confirmations=action["confirmations"],
            forced_reason=action["forced"],
        )


class ProposedBySignalOut(Out):
    """Change of the membership that an approved signal requests."""

    signal_id: str
    move: MembershipMove = Field(description="Change of the membership.")
    symbol: str
    old_symbol: str | None = Field(description="Member that is replaced.")
    evaluation: str | None = Field(examples=["APPROVE"], description="Verdict on the signal.")
    consensus_score: Score | None = Field(description="Pooled probability of success.")

    @classmethod
    def of(cls, action: Any) -> Self:
        return cls(
            signal_id=action["signal_id"],
            move=MembershipMove(action["move"]),
            symbol=action["symbol"],
            old_symbol=action["old_symbol"],
            evaluation=action["evaluation"],
            consensus_score=action["score"],
        )


class DecisionOut(Out):
    """End of a proposal; `by` is "schedule" if no operator decided."""

    at: UtcTime = Field(description="UTC time of the decision.")
    by: str = Field(description="Principal of the decision; `schedule` if no operator decided.")
    reason: str
    run_id: str | None = Field(description="Of the rebalance that carried it out.")
    version: int | None = Field(description="Of the portfolio afterwards.")

    @classmethod
    def of(cls, decision: Decision) -> Self:
        return cls.model_validate(decision)


class ProposalOut(Out):
    """One proposal, with its action in `rebalance`, `replacement` or `signal`."""

    proposal_id: str
    kind: ProposalKind = Field(description="Kind of the proposal.")
    state: ProposalState = Field(description="State of the proposal.")
    version: int = Field(description="The portfolio version that it was made for.")
    reason: str
    opened_at: UtcTime = Field(description="UTC time at which it was proposed.")
    expires_at: UtcTime
    run_id: str | None = Field(description="Of the run that proposed it.")
    proposed_by: str | None = Field(description="Sender of the signal; null without one.")
    rebalance: ProposedRebalanceOut | None = Field(
        description="Proposed rebalance; null for another kind."
    )
    replacement: ProposedReplacementOut | None = Field(
        description="Proposed replacement; null for another kind."
    )
    signal: ProposedBySignalOut | None = Field(
        description="Action that a signal proposes; null for another kind."
    )
    decision: DecisionOut | None = Field(description="Null while it is open.")

    @classmethod
    def of(cls, one: Proposal) -> Self:
        return cls(**proposal_fields(one))


class ListedProposalOut(ProposalOut):
    """A proposal compared with the current portfolio."""

    is_outdated: bool = Field(description="True: open, but the portfolio version has changed.")


def proposal_fields(one: Proposal) -> dict[str, Any]:
    """The wire fields of a proposal."""
    kind, action = one.kind, one.action
    is_plan, is_swap = kind is ProposalKind.REBALANCE, kind is ProposalKind.REPLACEMENT
    return {
        "proposal_id": one.proposal_id,
        "kind": one.kind,
        "state": one.state,
        "version": one.version,
        "reason": one.reason,
        "opened_at": one.opened_at,
        "expires_at": one.expires_at,
        "run_id": one.run_id,
        "proposed_by": one.proposed_by,
        "rebalance": ProposedRebalanceOut.of(action) if is_plan else None,
        "replacement": ProposedReplacementOut.of(action) if is_swap else None,
        "signal": ProposedBySignalOut.of(action) if kind is ProposalKind.SIGNAL else None,
        "decision": None if one.decision is None else DecisionOut.of(one.decision),
    }


@router.get("", summary="Proposals of the schedule")
@requires(Role.VIEWER)
async def list_proposals(
    proposals: Provided[ProposalService],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
    kind: Annotated[ProposalKind | None, Query(description="Only of this kind.")] = None,
) -> Page[ListedProposalOut]:
    """Newest first, open and ended ones.

    With automation `propose` in the configuration, the schedule opens a proposal instead of acting.
    A proposal is decided once: approved, declined, expired, or superseded by a change of the
    portfolio or the recommendation.
    """
    chosen = {"kind": None if kind is None else kind.value}
    start = cursors.decode("proposals", chosen, cursor)
    before = moment_and_id(start)
    found = await proposals.page(before, limit + 1, kind)
    page, last = cut(
        found, limit, lambda one: (one.proposal.opened_at.isoformat(), one.proposal.proposal_id)
    )
    return Page(
        items=[
            ListedProposalOut(**proposal_fields(one.proposal), is_outdated=one.is_outdated)
            for one in page
        ],
        next_cursor=None if last is None else cursors.encode("proposals", chosen, last),
    )


@router.post(
    "/{proposal_id}/approve",
    summary="Approve a proposal",
    response_model=ProposalOut,
    responses=problems(
        *_DECIDED,
        *DECIDES,
        Code.VERSION_CONFLICT,
        Code.PLAN_CHANGED,
        Code.FOUR_EYES,
        Code.REBALANCE_IN_PROGRESS,
        Code.PORTFOLIO_FULL,
        Code.TRADING_DISABLED,
        Code.SYMBOL_BANNED,
        Code.SYMBOL_PINNED,
        Code.SYMBOL_NOT_IN_PORTFOLIO,
        Code.SYMBOL_ALREADY_IN_PORTFOLIO,
        Code.SYMBOL_UNKNOWN,
        Code.SYMBOL_NOT_TRADABLE,
        Code.CORRELATION_LIMIT,
        Code.SECTOR_LIMIT,
    ),
)
@requires(Role.OPERATOR)
async def approve_proposal(
    proposals: Provided[ProposalService],
    command: CommandDep,
    proposal_id: IdPath,
    body: ChangeRequest | None = None,
) -> Response:
    """Executes the action and closes the proposal, in one transaction.

    The proposed plan or swap is executed after checking every safety rule again. A proposal for
    another version of the portfolio is superseded: 409 `version_conflict`. If weights or targets
    have moved by more than `rebalance_threshold`, or a rule now forbids a part, nothing changes.
    The current plan is then proposed instead: 409 `plan_changed` with its `proposal_id`. If the
    action is refused or unavailable, the proposal stays open. With four eyes
    (`MYSYMBOLS_SECURITY__FOUR_EYES`) the caller whose signal it is gets 409 `four_eyes`.
    """
    said = body or ChangeRequest()
    return sent(
        await proposals.approve(
            proposal_id, said.reason or DEFAULT_REASON, by(command, said.user), _render
        )
    )


@router.post(
    "/{proposal_id}/decline",
    summary="Decline a proposal",
    response_model=ProposalOut,
    responses=problems(*_DECIDED),
)
@requires(Role.OPERATOR)
async def decline_proposal(
    proposals: Provided[ProposalService],
    command: CommandDep,
    proposal_id: IdPath,
    body: ChangeRequest | None = None,
) -> Response:
    """Closes the proposal without effect. The schedule may propose the same again."""
    said = body or ChangeRequest()
    return sent(
        await proposals.decline(
            proposal_id, said.reason or DEFAULT_REASON, by(command, said.user), _render
        )
    )


def _render(decided: Proposal) -> StoredResponse:
    return keep(ProposalOut.of(decided))
