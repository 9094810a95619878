"""Business configuration: read, replace as a whole, look back."""

from typing import Any, Final, Self

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from app.configuration.domain.document import ConfigurationRefusedError
from app.configuration.domain.model import Configuration, CorrelationBasis
from app.configuration.domain.sections import Family
from app.foundation.errors import Code, PreconditionFailedError
from app.foundation.http.dependencies import CommandDep, CursorsDep, Provided, by
from app.foundation.http.errors import problem_response, problems
from app.foundation.http.pagination import Page, cut
from app.foundation.http.request_body import Body, DecimalIn
from app.foundation.http.responses import answer, etag, json_bytes, keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    NAMES,
    UNSAID,
    CursorText,
    Json,
    Limit,
    MoneyString,
    Out,
    Said,
    UtcTime,
)
from app.foundation.idempotency import Answer
from app.operations.api.configuration_schemas import (
    AlertSettingsIn,
    AlertSettingsOut,
    FeedIn,
    FeedOut,
    NotificationSettingsIn,
    NotificationSettingsOut,
    PolicyIn,
    PolicyOut,
    QualitySettingsIn,
    QualitySettingsOut,
    RebalancingIn,
    RebalancingOut,
    ReplacementSettingsIn,
    ReplacementSettingsOut,
    RetentionIn,
    RetentionOut,
    SignalsIn,
    SignalsOut,
    SizingIn,
    SizingOut,
)
from app.operations.services.configuration import ConfigurationService
from app.portfolio.domain.event_log import PortfolioEvent
from app.scoring.api.schemas import ScoringSettingsIn, ScoringSettingsOut

router = api_router("configuration", "/configuration")
_ABOUT_THE_CHANGE: Final = {"version", "reason", "user", "evict_lowest"}  # no settings


class CorrelationSettingsOut(Out):
    limit: float
    alert: float
    days: int
    addition_days: int
    min_common: int
    basis: CorrelationBasis


class EligibilitySettingsOut(Out):
    min_turnover: MoneyString
    min_daily_bars: int
    quotes: list[str]


class CadencesOut(Out):
    """Seconds."""

    market: int
    books: int
    funding: int
    hourly_candles: int
    daily_candles: int
    scoring: int
    rebalance_check: int
    replacement_check: int
    alerts: int
    performance_marks: int
    candles_look: int = Field(description="How soon after its close a bar is asked for.")
    books_step: int = Field(description="The rotation of `books` is cut into steps so long.")
    retention: int
    signals: int = Field(description="Those that could not be judged as they came.")
    signal_sources: int
    signal_outcomes: int


class ConfigurationOut(Out):
    """Every business setting of one version."""

    version: int
    max_portfolio_symbols: int
    min_weight_percentage: float
    max_weight_percentage: float
    family_weights: dict[Family, float]
    enter_score: float
    leave_score: float
    score_tilt: float
    rebalance_threshold: float = Field(description="Percentage points of drift.")
    rebalance_interval: int = Field(description="Seconds.")
    rebalance_interval_threshold: float = Field(
        description="Percentage points of drift, once the interval has passed."
    )
    rebalance_min_spacing: int = Field(
        description="Seconds from one rebalance to the next one that drift alone calls for."
    )
    replacement_candidates: int
    liquidity_share: float
    age_limit_cadences: float
    correlation: CorrelationSettingsOut
    eligibility: EligibilitySettingsOut
    cadences: CadencesOut
    alerts: AlertSettingsOut
    replacement: ReplacementSettingsOut
    rebalancing: RebalancingOut
    policy: PolicyOut
    sizing: SizingOut
    notifications: NotificationSettingsOut
    retention: RetentionOut
    quality: QualitySettingsOut
    signals: SignalsOut
    feed: FeedOut
    scoring: ScoringSettingsOut

    @classmethod
    def of(cls, settings: Configuration) -> Self:
        return cls.model_validate(settings, from_attributes=True)


class ConfigurationChanged(Out):
    """The settings now in force, and what they allow but may not have been meant."""

    configuration: ConfigurationOut
    warnings: list[str] = Field(examples=[["cash_remainder_at_least: 60.000000"]])


class CorrelationSettingsIn(Body):
    limit: float | None = None
    alert: float | None = None
    days: int | None = None
    addition_days: int | None = None
    min_common: int | None = None
    basis: str | None = None


class EligibilitySettingsIn(Body):
    min_turnover: DecimalIn | None = None
    min_daily_bars: int | None = None
    quotes: list[str] | None = None


class CadencesIn(Body):
    market: int | None = None
    books: int | None = None
    funding: int | None = None
    hourly_candles: int | None = None
    daily_candles: int | None = None
    scoring: int | None = None
    rebalance_check: int | None = None
    replacement_check: int | None = None
    alerts: int | None = None
    performance_marks: int | None = None
    candles_look: int | None = None
    books_step: int | None = None
    retention: int | None = None
    signals: int | None = None
    signal_sources: int | None = None
    signal_outcomes: int | None = None


class FamilyWeightsIn(Body):
    technical: float | None = None
    fundamental: float | None = None
    market_structure: float | None = None
    risk: float | None = None


class ConfigurationIn(Said):
    """Settings as GET gives them; what is left out keeps its value. Null is refused."""

    version: int | None = Field(None, description="If given, it must be the present version.")
    max_portfolio_symbols: int | None = None
    min_weight_percentage: DecimalIn | None = None
    max_weight_percentage: DecimalIn | None = None
    family_weights: FamilyWeightsIn | None = None
    enter_score: float | None = None
    leave_score: float | None = None
    score_tilt: float | None = None
    rebalance_threshold: DecimalIn | None = None
    rebalance_interval: int | None = None
    rebalance_interval_threshold: DecimalIn | None = None
    rebalance_min_spacing: int | None = None
    replacement_candidates: int | None = None
    liquidity_share: float | None = None
    age_limit_cadences: float | None = None
    correlation: CorrelationSettingsIn | None = None
    eligibility: EligibilitySettingsIn | None = None
    cadences: CadencesIn | None = None
    alerts: AlertSettingsIn | None = None
    replacement: ReplacementSettingsIn | None = None
    rebalancing: RebalancingIn | None = None
    policy: PolicyIn | None = None
    sizing: SizingIn | None = None
    notifications: NotificationSettingsIn | None = None
    retention: RetentionIn | None = None
    quality: QualitySettingsIn | None = None
    signals: SignalsIn | None = None
    feed: FeedIn | None = None
    scoring: ScoringSettingsIn | None = None
    evict_lowest: bool = Field(
        False,
        description="Where fewer members are allowed than there are: remove those with the lowest "
        "scores with the same change, pinned ones aside. Without it that is a 409.",
    )

    def changes(self) -> dict[str, Any]:
        """The settings that were given, as the domain judges them."""
        return self.model_dump(exclude_unset=True, exclude=_ABOUT_THE_CHANGE)


class VersionOut(Out):
    """One version: who made it, when and why."""

    version: int
    created_at: UtcTime
    created_by: str
    reason: str
    request_id: str
    settings: Json = Field(description="The whole document; numbers with fractions as text.")

    @classmethod
    def of(cls, event: PortfolioEvent) -> Self:
        return cls(
            version=event.payload["configuration_version"],
            created_at=event.occurred_at,
            created_by=event.actor,
            reason=event.reason,
            request_id=event.request_id,
            settings=event.payload["settings"],
        )


@router.get("", summary="The settings in force", response_model=ConfigurationOut)
async def configuration(configuration: Provided[ConfigurationService]) -> Response:
    """Weights, thresholds, limits and cadences. The ETag is the version."""
    settings = await configuration.current()
    return answer(
        json_bytes(ConfigurationOut.of(settings)), headers={"ETag": etag(settings.version)}
    )


@router.put(
    "",
    summary="Change the settings as a whole",
    response_model=ConfigurationChanged,
    responses=problems(
        Code.CONSTRAINTS_INFEASIBLE,
        Code.PORTFOLIO_EXCEEDS_LIMIT,
        Code.REBALANCE_IN_PROGRESS,
        Code.MARKET_DATA_STALE,
        Code.NO_BOARD_YET,
        Code.CLOCK_UNSAFE,
        *NAMES,
        *CHANGES,
    ),
)
async def put_configuration(
    request: Request,
    configuration: Provided[ConfigurationService],
    command: CommandDep,
    body: ConfigurationIn,
) -> Response:
    """All settings are judged together and take effect together, as the next version.

    `If-Match` is the version of the configuration. Settings that are so already make no version.
    """
    if body.version is not None and command.if_match not in {None, body.version}:
        raise PreconditionFailedError(
            Code.PRECONDITION_FAILED, "The body and If-Match name different versions."
        )

    def render(settings: Configuration) -> Answer:
        shown = ConfigurationChanged(
            configuration=ConfigurationOut.of(settings), warnings=list(settings.warnings())
        )
        return keep(shown, headers={"ETag": etag(settings.version)})

    who = by(command.on_version(body.version), body.user)
    try:
        done = await configuration.put(
            body.changes(), body.reason or UNSAID, who, render, evict_lowest=body.evict_lowest
        )
    except ConfigurationRefusedError as refused:
        places = [(("body", *one.loc.split(".")), one.type) for one in refused.complaints]
        return problem_response(request, 422, refused.code, refused.detail, errors=places)
    return sent(done)


@router.get("/history", summary="Versions of the settings")
async def configuration_history(
    configuration: Provided[ConfigurationService],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[VersionOut]:
    """Newest first; version 1 are the defaults and has no entry."""
    start = cursors.decode("configuration_history", {}, cursor)
    before = None if start is None else int(start[0])
    events = await configuration.history(before, limit + 1)
    page, last = cut(events, limit, lambda event: (event.seq,))
    return Page(
        items=[VersionOut.of(event) for event in page],
        next_cursor=None if last is None else cursors.encode("configuration_history", {}, last),
    )
