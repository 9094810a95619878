"""Which members should give way to which symbols, and what stands in the way."""

from typing import Self

from pydantic import Field

from app.foundation.http.dependencies import ServiceDep
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Freshness, Out, Score, finite
from app.portfolio.api.schemas import freshness
from app.portfolio.domain.replacement import Block, Proposal
from app.portfolio.services.replacement import Replacements

router = api_router("portfolio", "/portfolio")


class ReplacementOut(Out):
    """One member and the best symbol in its place; nothing blocks a swap that is due."""

    replace_symbol: str
    replace_score: Score | None = Field(description="Null for a member that is not scored.")
    candidate_symbol: str | None = Field(description="Null where nobody may come in.")
    candidate_score: Score | None
    score_improvement: float | None
    improvement_z: float | None = Field(description="The same in composite z, which decides.")
    threshold_z: float | None = Field(
        description="D of this pair: `noise_multiple` times the noise, and the cost; null if "
        "either is unknown."
    )
    noise_z: float | None = Field(description="Of the difference of both composite z over a week.")
    cost_z: float | None = Field(
        description="Fees, spread, impact and the difference of funding over the horizon, in z."
    )
    recommendation_strength: Score | None = Field(
        description="How likely it pays for its cost, times the confidence; null if unknown."
    )
    confirmations: int = Field(description="Consecutive evaluations above the threshold.")
    forced: bool = Field(description="The member cannot stay: it is replaced at once.")
    reason: str | None = Field(description="Why it is forced.")
    blocked_by: list[Block]

    @classmethod
    def of(cls, one: Proposal) -> Self:
        old, new = one.leaver.contender, one.candidate
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
            reason=one.leaver.forced,
            blocked_by=list(one.blocked_by),
        )


class ReplacementsOut(Freshness):
    """Forced ones first, then the weakest members, weakest first."""

    version: int = Field(description="Of the portfolio.")
    required_confirmations: int
    replacements: list[ReplacementOut]

    @classmethod
    def of(cls, shown: Replacements) -> Self:
        return cls(
            version=shown.version,
            required_confirmations=shown.required_confirmations,
            replacements=[ReplacementOut.of(one) for one in shown.proposals],
            **freshness(shown.facts),
        )


@router.get("/replacements", summary="Recommended replacements")
async def replacements(service: ServiceDep) -> ReplacementsOut:
    """The weakest members, each with the best symbol of the whole universe in its place.

    A candidate passes eligibility, the limits on correlation and sectors, and the confidence asked
    for. A swap needs an improvement beyond noise and cost, confirmed on distinct boards, a minimum
    holding time and a pause after the last one; a member that is no longer Open is replaced at
    once. The schedule counts confirmations; this call counts nothing.
    """
    return ReplacementsOut.of(await service.replacement.evaluate())
