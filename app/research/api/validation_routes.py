"""Route of the evidence of the live scores."""

from typing import Annotated, Final, Self

from fastapi import Query
from pydantic import Field

from app.foundation.http.dependencies import EXPENSIVE, Provided
from app.foundation.http.openapi_fields import UNIT
from app.foundation.http.permissions import requires
from app.foundation.http.route_limits import limited_by
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Correlation, Freshness, Out, QueryInt, Ratio, Share, UtcTime
from app.foundation.principals import Role, RouteLimit
from app.research.services.evidence import HORIZON
from app.research.services.live_validation import DAYS, LiveValidation, ScoreValidation
from app.scoring.domain.factor_evidence import EvidenceLabel, FactorEvidence, ScoreLevel

MAX_HORIZON: Final = 60
MAX_DAYS: Final = 400  # a label at the longest horizon needs 369
router = api_router("scoring", "/scoring")


class ScoreEvidenceOut(Out):
    """Evidence of one score; a figure is null with too few days."""

    level: ScoreLevel = Field(description="Level of the score.")
    name: str = Field(
        description="Name of the family or factor, or `composite`.", examples=["composite"]
    )
    days: int = Field(description="Days with an IC.")
    ic: Correlation | None = Field(
        description="Information coefficient: mean rank correlation with the returns that followed."
    )
    ic_t: Ratio | None = Field(description="Newey-West t statistic of `ic`.")
    coverage: Share | None = Field(
        description="Share of the symbols with a complete return that have this score."
    )
    quantile_spread: Share | None = Field(
        description="Return a day of the fifth with the highest scores less that of the lowest."
    )
    quantile_spread_t: Ratio | None = Field(
        description="Newey-West t statistic of `quantile_spread`."
    )
    turnover: Share | None = Field(
        description="Mean share of the best fifth that has left it one horizon later."
    )
    label: EvidenceLabel | None = Field(
        description="Judgement from the t of three equal periods: `proven`, `weak`, `unproven` or "
        "`harmful`."
    )
    reason: str | None = Field(
        description="Reason for missing figures or a missing label.",
        examples=["12 days with complete returns of enough symbols, 60 are needed"],
    )

    @classmethod
    def of(cls, one: FactorEvidence) -> Self:
        return cls(
            level=one.level,
            name=one.name,
            days=one.days,
            ic=one.ic,
            ic_t=one.ic_t,
            coverage=one.coverage,
            quantile_spread=one.spread,
            quantile_spread_t=one.spread_t,
            turnover=one.turnover,
            label=one.label,
            reason=one.reason,
        )


class ScoreValidationOut(Freshness):
    """Evidence of the live scores in a period."""

    begin: UtcTime = Field(
        alias="from", description="UTC day of the first board, else of the window."
    )
    end: UtcTime = Field(alias="to", description="End of the last complete UTC day, exclusive.")
    as_of: UtcTime | None = Field(description="Close of the newest daily candle; null for none.")
    measured_at: UtcTime = Field(
        description="Time of the measurement; past days change no more, so it is made once a day."
    )
    horizon: int = Field(description="Length of a return.", json_schema_extra={UNIT: "days"})
    board_days: int = Field(description="Days with a complete board.")
    days_needed: int = Field(description="Days with an IC that the figures need.")
    days_for_label: int = Field(description="Days with boards that a label needs.")
    algorithm_versions: list[int] = Field(
        description="Versions of the algorithm that scored the boards.",
        json_schema_extra={UNIT: "ordinal"},
    )
    items: list[ScoreEvidenceOut] = Field(
        description="Composite, families, then factors; empty without a board."
    )

    @classmethod
    def of(cls, made: LiveValidation) -> Self:
        return cls.model_validate(
            {
                "from": made.begin,
                "to": made.end,
                "as_of": made.as_of,
                "measured_at": made.measured_at,
                "data_source": made.source,
                "data_status": made.status,
                "horizon": made.horizon,
                "board_days": made.board_days,
                "days_needed": made.days_needed,
                "days_for_label": made.days_for_label,
                "algorithm_versions": list(made.algorithm_versions),
                "items": [ScoreEvidenceOut.of(one) for one in made.scores],
            }
        )


@router.get("/validation", summary="Evidence of the live scores", dependencies=EXPENSIVE)
@requires(Role.VIEWER)
@limited_by(RouteLimit.HEAVY)
async def get_score_validation(
    validation: Provided[ScoreValidation],
    horizon: Annotated[
        QueryInt, Query(ge=1, le=MAX_HORIZON, description="Days of a return.")
    ] = HORIZON,
    days: Annotated[
        QueryInt, Query(ge=1, le=MAX_DAYS, description="Complete UTC days to look back.")
    ] = DAYS,
) -> ScoreValidationOut:
    """Last complete board of each UTC day against the returns that followed.

    A return begins at the open of the next day and ends at the open `horizon` days later; one that
    is not complete is left out. A label needs three periods.
    """
    return ScoreValidationOut.of(await validation.validate(horizon, days))
