"""Routes of membership changes: initialise, add, remove, replace."""

from typing import Literal, Self

from pydantic import Field, model_validator
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.dependencies import CommandDep, Provided, by
from app.foundation.http.errors import problems
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import SymbolText
from app.foundation.http.responses import etag, keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    DECIDES,
    DEFAULT_REASON,
    NAMES,
    ChangeRequest,
    Correlation,
    Difference,
    Freshness,
    Out,
    Percent,
    Score,
    SymbolIn,
    UtcTime,
    ZScore,
    example,
    finite,
    one_of,
    percent,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role
from app.portfolio.api.schemas import MemberChanged, MemberOut, freshness
from app.portfolio.domain.candidate_selection import RefusedCandidate
from app.portfolio.domain.models import Member
from app.portfolio.domain.replacement import ReplacementBlock, ReplacementProposal
from app.portfolio.services.membership import (
    InitializeResult,
    PortfolioService,
    RemoveResult,
    ReplaceResult,
)
from app.portfolio.services.replacement import ReplacementOverview, ReplacementService, VacantSeat
from app.portfolio.services.views import MemberView

router = api_router("portfolio", "/portfolio")
MEMBER_CHANGES = (Code.REBALANCE_IN_PROGRESS, *CHANGES)
# Refusals of a new member.
_ENTERS = (
    Code.SYMBOL_ALREADY_IN_PORTFOLIO,
    Code.SYMBOL_BANNED,
    Code.TRADING_DISABLED,
    Code.SYMBOL_NOT_TRADABLE,
    Code.CORRELATION_LIMIT,
    Code.SECTOR_LIMIT,
    *NAMES,
    *DECIDES,
    *MEMBER_CHANGES,
)


class InitializeIn(ChangeRequest):
    model_config = example({"size": 10, "reason": "first portfolio"})

    size: int | None = Field(None, ge=1, le=100, description="At most max_portfolio_symbols.")


class ReplaceIn(ChangeRequest):
    """Two symbols, each in any spelling or by its UUID."""

    model_config = example({"old_symbol": "BTCUSDT", "new_symbol": "ETHUSDT"})

    old_symbol: SymbolText | None = Field(
        None, description="Member to remove, in any spelling or by its UUID."
    )
    old_symbol_id: SymbolText | None = Field(None, description="Accepted in place of `old_symbol`.")
    new_symbol: SymbolText | None = Field(
        None, description="Symbol to add, in any spelling or by its UUID."
    )
    new_symbol_id: SymbolText | None = Field(None, description="Accepted in place of `new_symbol`.")

    @model_validator(mode="after")
    def _two_names(self) -> Self:
        one_of(old_symbol=self.old_symbol, old_symbol_id=self.old_symbol_id)
        one_of(new_symbol=self.new_symbol, new_symbol_id=self.new_symbol_id)
        return self


class RefusedOut(Out):
    """Refused candidate with its reason."""

    symbol: str
    score: Score | None = Field(description="Composite score of the candidate.")
    reason: str = Field(examples=["correlation_limit"], description="Code of the refusal.")
    conflicting_symbol: str | None = Field(
        description="Member that it correlates with too closely."
    )
    correlation: Correlation | None = Field(
        description="Largest correlation with a member; null if it is not the reason."
    )

    @classmethod
    def of(cls, one: RefusedCandidate) -> Self:
        return cls(
            symbol=one.symbol,
            score=finite(one.score),
            reason=one.reason.value,
            conflicting_symbol=one.conflicting_symbol,
            correlation=finite(one.correlation),
        )


class InitializedOut(Freshness):
    version: int = Field(description="Portfolio version after the change.")
    size: int
    max_size: int
    cash_percentage: Percent
    members: list[MemberOut]
    refused: list[RefusedOut] = Field(
        description="Better candidates that were refused, with their reason."
    )

    @classmethod
    def of(cls, done: InitializeResult) -> Self:
        view = done.view
        return cls(
            version=view.portfolio.version,
            size=len(view.members),
            max_size=view.max_size,
            cash_percentage=percent(view.portfolio.cash_u),
            members=[MemberOut.of(member) for member in view.members],
            refused=[RefusedOut.of(one) for one in done.refused],
            **freshness(view.facts),
        )


class FormerMember(Out):
    symbol: str
    contract: str
    position_rank: int
    weight_percentage: Percent
    status: Literal["Removed", "Replaced"] = Field(description="`Removed` or `Replaced`.")

    @classmethod
    def of(cls, member: Member, status: Literal["Removed", "Replaced"]) -> Self:
        return cls(
            symbol=member.symbol,
            contract=member.contract,
            position_rank=member.rank,
            weight_percentage=percent(member.weight_u),
            status=status,
        )


class RemovedOut(Out):
    version: int = Field(description="Portfolio version after the change.")
    cash_percentage: Percent
    removed: FormerMember = Field(description="Member that left.")

    @classmethod
    def of(cls, done: RemoveResult) -> Self:
        return cls(
            version=done.version,
            cash_percentage=percent(done.cash_u),
            removed=FormerMember.of(done.member, "Removed"),
        )


class ReplacedOut(Freshness):
    version: int = Field(description="Portfolio version after the change.")
    old_symbol: FormerMember = Field(description="Member that left.")
    new_symbol: MemberOut = Field(description="Member that entered.")
    score_difference: Difference | None = Field(description="New minus old; null where unknown.")

    @classmethod
    def of(cls, done: ReplaceResult) -> Self:
        return cls(
            version=done.version,
            old_symbol=FormerMember.of(done.old, "Replaced"),
            new_symbol=MemberOut.of(done.new),
            score_difference=finite(done.score_difference),
            **freshness(done.new.facts),
        )


def _tag(version: int) -> dict[str, str]:
    return {"ETag": etag(version)}


@router.post(
    "/initialize",
    summary="Choose the members",
    response_model=InitializedOut,
    responses=problems(Code.PORTFOLIO_NOT_EMPTY, Code.TRADING_DISABLED, *DECIDES, *MEMBER_CHANGES),
)
@requires(Role.OPERATOR)
async def initialize_portfolio(
    portfolio: Provided[PortfolioService], command: CommandDep, body: InitializeIn | None = None
) -> Response:
    """Best of the board first, within the correlation limit; each refusal has a reason.

    The result has fewer members than requested if no more qualify.
    """
    asked = body or InitializeIn()

    def render(done: InitializeResult) -> StoredResponse:
        return keep(InitializedOut.of(done), headers=_tag(done.view.portfolio.version))

    return sent(
        await portfolio.initialize(
            asked.size, asked.reason or "initial portfolio", by(command, asked.user), render
        )
    )


@router.post(
    "/add-symbol",
    summary="Add a member",
    status_code=201,
    response_model=MemberChanged,
    responses=problems(
        Code.PORTFOLIO_FULL,
        *_ENTERS,
    ),
)
@requires(Role.OPERATOR)
async def add_symbol(
    portfolio: Provided[PortfolioService], command: CommandDep, body: SymbolIn
) -> Response:
    """The new member is last in rank; all weights are set again in the same change."""

    def render(done: MemberView) -> StoredResponse:
        return keep(MemberChanged.of(done), 201, _tag(done.version))

    return sent(
        await portfolio.add(
            body.named, body.reason or DEFAULT_REASON, by(command, body.user), render
        )
    )


@router.post(
    "/remove-symbol",
    summary="Remove a member",
    response_model=RemovedOut,
    responses=problems(Code.SYMBOL_NOT_IN_PORTFOLIO, Code.SYMBOL_PINNED, *NAMES, *MEMBER_CHANGES),
)
@requires(Role.OPERATOR)
async def remove_symbol(
    portfolio: Provided[PortfolioService], command: CommandDep, body: SymbolIn
) -> Response:
    """Allowed with stale data too: the weight then goes to cash and the others are unchanged.

    A pinned member cannot be removed.
    """

    def render(done: RemoveResult) -> StoredResponse:
        return keep(RemovedOut.of(done), headers=_tag(done.version))

    return sent(
        await portfolio.remove(
            body.named, body.reason or DEFAULT_REASON, by(command, body.user), render
        )
    )


@router.post(
    "/replace-symbol",
    summary="Replace a member",
    response_model=ReplacedOut,
    responses=problems(
        Code.SYMBOL_NOT_IN_PORTFOLIO,
        Code.SYMBOL_PINNED,
        *_ENTERS,
    ),
)
@requires(Role.OPERATOR)
async def replace_symbol(
    portfolio: Provided[PortfolioService], command: CommandDep, body: ReplaceIn
) -> Response:
    """The new member takes the rank of the old one, in one transaction."""

    def render(done: ReplaceResult) -> StoredResponse:
        return keep(ReplacedOut.of(done), headers=_tag(done.version))

    return sent(
        await portfolio.replace(
            one_of(old_symbol=body.old_symbol, old_symbol_id=body.old_symbol_id),
            one_of(new_symbol=body.new_symbol, new_symbol_id=body.new_symbol_id),
            body.reason or DEFAULT_REASON,
            by(command, body.user),
            render,
        )
    )


class ReplacementOut(Out):
    """One member and its best replacement; a swap without blocks is due."""

    replace_symbol: str
    replace_score: Score | None = Field(description="Null for a member that is not scored.")
    candidate_symbol: str | None = Field(description="Null without an admissible candidate.")
    candidate_score: Score | None
    score_improvement: Difference | None = Field(
        description="Composite score of the candidate minus that of the member."
    )
    improvement_z: ZScore | None = Field(description="The same in composite z, which decides.")
    threshold_z: ZScore | None = Field(
        description="D of this pair: `noise_multiple` times the noise, and the cost; null if "
        "either is unknown."
    )
    noise_z: ZScore | None = Field(description="Of the difference of both composite z over a week.")
    cost_z: ZScore | None = Field(
        description="Fees, spread, impact and the difference of funding over the horizon, in z."
    )
    recommendation_strength: Score | None = Field(
        description="Probability that it exceeds its cost, times the confidence; null if unknown."
    )
    confirmations: int = Field(description="Consecutive evaluations above the threshold.")
    forced: bool = Field(description="True: the member cannot stay and is replaced at once.")
    reason: str | None = Field(description="Reason that it is forced.")
    blocked_by: list[ReplacementBlock] = Field(
        description="Reasons for which the replacement is not due; empty if it is due."
    )

    @classmethod
    def of(cls, one: ReplacementProposal) -> Self:
        old, new = one.outgoing.side, one.candidate
        return cls(
            replace_symbol=old.symbol,
            replace_score=finite(old.score),
            candidate_symbol=None if new is None else new.symbol,
            candidate_score=None if new is None else finite(new.score),
            score_improvement=finite(one.score_improvement),
            improvement_z=finite(one.comparison.improvement),
            threshold_z=finite(one.threshold),
            noise_z=finite(one.comparison.noise),
            cost_z=finite(one.comparison.cost),
            recommendation_strength=finite(one.strength),
            confirmations=one.confirmations,
            forced=one.is_forced,
            reason=one.outgoing.forced,
            blocked_by=list(one.blocked_by),
        )


class VacancyOut(Out):
    """Seat of a member that was forced out while no complete board named a replacement."""

    symbol: str = Field(description="The member that left for cash.")
    reason: str = Field(description="Reason of the forced exit.")
    vacated_at: UtcTime = Field(description="UTC time at which the member left.")
    state: Literal["waiting", "given_up"] = Field(
        description="waiting: the next complete board fills it. given_up: it has waited longer "
        "than `replacement.vacancy_max_age_s` and stays empty until a symbol is added."
    )

    @classmethod
    def of(cls, seat: VacantSeat) -> Self:
        one = seat.vacancy
        return cls(
            symbol=one.symbol,
            reason=one.reason,
            vacated_at=one.vacated_at,
            state="given_up" if seat.is_given_up else "waiting",
        )


class ReplacementsOut(Freshness):
    """Forced ones first, then the weakest members, weakest first."""

    version: int = Field(description="Of the portfolio.")
    required_confirmations: int = Field(
        description="Number of consecutive evaluations that confirm a replacement."
    )
    replacements: list[ReplacementOut] = Field(
        description="Replacements: forced ones, then the weakest members."
    )
    vacancies: list[VacancyOut] = Field(description="Empty seats, the longest vacant first.")

    @classmethod
    def of(cls, shown: ReplacementOverview) -> Self:
        return cls(
            version=shown.version,
            required_confirmations=shown.required_confirmations,
            replacements=[ReplacementOut.of(one) for one in shown.proposals],
            vacancies=[VacancyOut.of(one) for one in shown.seats],
            **freshness(shown.facts),
        )


@router.get("/replacements", summary="Recommended replacements")
@requires(Role.VIEWER)
async def list_replacements(replacement: Provided[ReplacementService]) -> ReplacementsOut:
    """The weakest members, each with its best replacement of the whole universe.

    A candidate must be eligible, within the correlation and sector limits, and confident enough.
    A swap needs an improvement beyond noise and cost, confirmed on distinct boards. It also needs a
    minimum holding time and a pause after the last swap. A member that is no longer Open is
    replaced at once. The schedule counts confirmations; this call does not.
    """
    return ReplacementsOut.of(await replacement.evaluate())
