"""Route of the preview: scores, members, plan and cost of changed settings and locks."""

from collections.abc import Iterator
from typing import Annotated, Final, Self

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from app.configuration.api.schemas import SettingsUpdate
from app.configuration.domain.document import ConfigurationRefusedError
from app.foundation.errors import Code, FieldFault
from app.foundation.http.dependencies import EXPENSIVE, Provided
from app.foundation.http.errors import load_request_shape, problem_response, problems
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body, DecimalIn, ReasonText, SymbolText
from app.foundation.http.responses import answer, large_json_bytes
from app.foundation.http.route_limits import limited_by
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    NAMES,
    Freshness,
    Out,
    Percent,
    PercentPoints,
    Score,
    Share,
    UtcTime,
    finite,
    percent,
)
from app.foundation.principals import Role, RouteLimit
from app.operations.api.configuration_routes import SettingChangeView
from app.operations.services.preview import (
    REASON,
    ChangePreview,
    LockRefusedError,
    PreviewedLock,
    PreviewedMember,
    PreviewedState,
    PreviewRequest,
    PreviewResult,
    PreviewStep,
)
from app.portfolio.api.membership_routes import ReplacementOut
from app.portfolio.api.rebalance_routes import ChangeOut, LotRuleOut, LotsOut
from app.portfolio.api.schemas import RebalanceErrorOut, freshness
from app.portfolio.domain.controls import LockKind
from app.portfolio.services.tradeability import describe_data
from app.scoring.domain.board import Card

router = api_router("portfolio", "/portfolio")
_MAX_LOCKS: Final = 100


class LockPreviewIn(Body):
    """Lock that a symbol would get in place of its present one."""

    kind: Annotated[LockKind, Field(strict=False)] | None = Field(
        description="Null removes the present lock."
    )
    reason: ReasonText = REASON


class PreviewIn(Body):
    """Changes to preview; without any the present state is shown twice."""

    settings: SettingsUpdate | None = Field(
        None,
        description="As for `PATCH /configuration`: weights of families and factors, caps,"
        " eligibility floors, fixed weights and all others.",
    )
    locks: Annotated[dict[SymbolText, LockPreviewIn], Field(max_length=_MAX_LOCKS)] = Field(
        default_factory=dict, description="Locks by symbol, in any spelling."
    )
    evict_lowest: bool = Field(False, description="As for `PATCH /configuration`.")
    account_balance: Annotated[DecimalIn, Field(gt=0, le=10**12)] | None = Field(
        None, description="Equity in the quote currency; adds lots to the plans."
    )
    top: int = Field(
        20, ge=0, le=1_000, description="Number of best symbols whose scores are shown."
    )

    def request(self) -> PreviewRequest:
        settings = self.settings
        return PreviewRequest(
            settings={} if settings is None else settings.model_dump(exclude_unset=True),
            locks={
                symbol: PreviewedLock(one.kind, one.reason) for symbol, one in self.locks.items()
            },
            evict_lowest=self.evict_lowest,
            account_balance=self.account_balance,
        )


class PreviewRefusalOut(Out):
    """Step of the service that would be refused, with its problem."""

    step: PreviewStep = Field(description="Step that would be refused.")
    code: str = Field(
        description="Problem code of the refusal.", examples=["portfolio_exceeds_limit"]
    )
    detail: str = Field(description="Sentence for people.")


class PreviewPlanOut(Out):
    """Answer of a dry run of the rebalance, and the replacements, in one state."""

    scores_as_of: UtcTime | None = Field(description="Of the board; null before the first one.")
    members: list[str] = Field(description="By rank.")
    triggers: list[str] = Field(examples=[["drift"]])
    changes: list[ChangeOut] = Field(description="Weights that change.")
    total_changes: int
    turnover: PercentPoints = Field(description="Sum of the absolute changes, percentage points.")
    estimated_cost: Share | None = Field(
        description="Of equity; null where a price is missing or a book is too thin."
    )
    cost_includes_impact: bool = Field(description="True if the cost includes the price impact.")
    lots: LotsOut | None = Field(description="Null without a balance.")
    lot_rule: LotRuleOut = Field(description="Smallest changes that are traded.")
    waits_until: UtcTime | None = Field(description="End of the drift wait.")
    cash_percentage: Percent
    flags: list[str]
    would_be_refused: RebalanceErrorOut | None = Field(
        description="Problem that a rebalance would return."
    )
    replacements: list[ReplacementOut] = Field(description="As `GET /portfolio/replacements`.")

    @classmethod
    def of(cls, state: PreviewedState) -> Self:
        made, refusal, board = state.decision, state.loaded.refusal, state.context.complete_board
        plan, portfolio = made.plan, state.loaded.portfolio
        return cls(
            scores_as_of=None if board is None else board.as_of,
            members=[member.symbol for member in portfolio.members],
            triggers=[trigger.value for trigger in plan.triggers],
            changes=[
                ChangeOut.of(change, made.lots.lots[change.symbol] if made.lots else None)
                for change in plan.changes
            ],
            total_changes=len(plan.changes),
            turnover=percent(plan.turnover_u),
            estimated_cost=finite(made.cost),
            cost_includes_impact=made.has_impact,
            lots=None if made.lots is None else LotsOut.of(made.lots),
            lot_rule=LotRuleOut.of(made.lot_rule, plan.held_back),
            waits_until=plan.waits_until,
            cash_percentage=percent(plan.allocation.cash_u if plan.changes else portfolio.cash_u),
            flags=[flag.value for flag in plan.allocation.flags],
            would_be_refused=None if refusal is None else RebalanceErrorOut.of(refusal),
            replacements=[ReplacementOut.of(one) for one in state.replacements],
        )


class PreviewWeightOut(Out):
    """Weight of a member in one state."""

    current: Percent = Field(description="After price drift.")
    planned: Percent = Field(description="After the plan; the current one without a trigger.")
    reason: str

    @classmethod
    def of(cls, member: PreviewedMember | None) -> Self | None:
        if member is None:
            return None
        return cls(
            current=percent(member.current_u),
            planned=percent(member.planned_u),
            reason=member.reason,
        )


class PreviewMemberOut(Out):
    """Weights of a member before and after the change."""

    symbol: str
    before: PreviewWeightOut | None = Field(description="Null: no member.")
    after: PreviewWeightOut | None = Field(description="Null: no member, or no state after.")


class PreviewScoreOut(Out):
    """Score and rank on the board; null where the symbol has none."""

    score: Score | None = Field(description="Composite score, 0..1; high is good.")
    rank: int | None = Field(description="Rank on the board, 1 is the best.")
    reason: str | None = Field(description="Reason that it has no score.")

    @classmethod
    def of(cls, card: Card | None) -> Self | None:
        if card is None:
            return None
        detail = card.reason if card.detail is None else f"{card.reason}: {card.detail}"
        return cls(
            score=finite(card.composite),
            rank=card.rank,
            reason=detail if card.rank is None else None,
        )


class PreviewSymbolOut(Out):
    """Scores of one symbol before and after the change."""

    symbol: str
    before: PreviewScoreOut | None = Field(description="Null: not on the board.")
    after: PreviewScoreOut | None = Field(description="Null: not on the board, or no state after.")


class PreviewOut(Freshness):
    """Scores, members, plan and cost before and after a change; nothing was written."""

    version: int = Field(description="Of the portfolio.")
    configuration_version: int = Field(description="Of the settings in force.")
    changes: list[SettingChangeView] = Field(description="Settings that would change.")
    warnings: list[str] = Field(description="About unusual combinations of the new settings.")
    is_rescored: bool = Field(
        description="Whether a setting that scores depend on changes. Otherwise both states rest"
        " on the present board."
    )
    refusals: list[PreviewRefusalOut] = Field(description="Steps that would be refused, and why.")
    before: PreviewPlanOut = Field(description="With the settings and locks in force.")
    after: PreviewPlanOut | None = Field(description="Null if the change itself would be refused.")
    weights: list[PreviewMemberOut] = Field(description="Members of either state, by name.")
    scores: list[PreviewSymbolOut] = Field(
        description="Members of either state and the best symbols of either board, by name."
    )

    @classmethod
    def of(cls, done: PreviewResult, top: int) -> Self:
        states = [one for one in (done.before, done.after) if one is not None]
        members = sorted({m.symbol for one in states for m in one.loaded.portfolio.members})
        shown = sorted({*members, *(name for one in states for name in _best(one, top))})
        after = done.after
        return cls(
            version=done.portfolio.version,
            configuration_version=done.settings.version,
            changes=[SettingChangeView.model_validate(one) for one in done.changes],
            warnings=list(done.warnings),
            is_rescored=done.is_rescored,
            refusals=[PreviewRefusalOut.model_validate(one) for one in done.refusals],
            before=PreviewPlanOut.of(done.before),
            after=None if after is None else PreviewPlanOut.of(after),
            weights=[
                PreviewMemberOut(
                    symbol=symbol,
                    before=PreviewWeightOut.of(done.before.member(symbol)),
                    after=None if after is None else PreviewWeightOut.of(after.member(symbol)),
                )
                for symbol in members
            ],
            scores=[
                PreviewSymbolOut(
                    symbol=symbol,
                    before=PreviewScoreOut.of(done.before.context.card(symbol)),
                    after=None if after is None else PreviewScoreOut.of(after.context.card(symbol)),
                )
                for symbol in shown
            ],
            **freshness(describe_data(done.before.context)),
        )


def _best(state: PreviewedState, top: int) -> Iterator[str]:
    board = state.context.complete_board
    cards = () if board is None else board.cards[:top]  # scored cards come by rank
    return (card.symbol for card in cards if card.rank is not None)


@router.post(
    "/preview",
    summary="Preview of changed settings and locks",
    response_model=PreviewOut,
    responses=problems(Code.CONSTRAINTS_INFEASIBLE, Code.OVERLOADED, *NAMES),
    dependencies=EXPENSIVE,
)
@requires(Role.VIEWER)
@limited_by(RouteLimit.PREVIEW)
async def preview_changes(
    request: Request, preview: Provided[ChangePreview], body: PreviewIn | None = None
) -> Response:
    """Scores, members, turnover and cost before and after a change; writes nothing.

    The functions that score and rebalance decide on the present portfolio, once with the settings
    in force and once with the changed ones. `before` says what a dry run of the rebalance says.
    Where scores change, the market data of the present board is scored again. `refusals` names
    the steps that would be refused now; an invalid change is 422 with its place.
    """
    asked = body or PreviewIn()
    try:
        done = await preview.preview(asked.request())
    except ConfigurationRefusedError as refused:
        errors = [
            FieldFault(("body", "settings", *one.loc.split(".")), one.type, one.message)
            for one in refused.complaints
        ]
        await load_request_shape(request)
        return problem_response(request, 422, refused.code, refused.detail, errors=errors)
    except LockRefusedError as refused:
        place = ("body", "locks", refused.symbol)
        fault = FieldFault(place, refused.code.value, refused.detail, "string")
        await load_request_shape(request)
        return problem_response(request, 422, refused.code, refused.detail, errors=[fault])
    return answer(await large_json_bytes(lambda: PreviewOut.of(done, asked.top)))
