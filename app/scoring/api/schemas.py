"""Response models of scores, rankings and explanations."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from typing import Annotated, Self

from pydantic import Field

from app.configuration.domain.sections import Family
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.http.schemas import (
    Freshness,
    Out,
    Ratio,
    Raw,
    RoundedJson,
    Score,
    Share,
    UtcTime,
    ZScore,
)
from app.scoring.domain.board import Board, Card, CardStatus, Confidence, FactorReading
from app.scoring.domain.counterfactual import Counterfactual
from app.scoring.domain.explanation import (
    FORMULA,
    WHY_PERCENTILES_DIFFER,
    FactorBreakdown,
    explain_card,
)
from app.scoring.domain.ranking import AlgorithmType, RankedCard


class FactorOut(Out):
    """One factor; contributions of all factors and the neutralisation add up to the composite z."""

    name: str = Field(description="Name of the factor.")
    family: Family = Field(description="Family of the factor.")
    raw: Raw | None = Field(description="Measured value in `unit`; null if unknown.")
    unit: str = Field(description="Unit of the measured value.")
    z: ZScore | None = Field(
        description="Normal score of the measured value within the universe, oriented so that "
        "high is good."
    )
    weight: Share = Field(description="Weight in the composite.")
    weight_in_family: Ratio = Field(
        description="Weight of z in the weighted sum of the family; 0 without a value. The squares"
        " of those that count add up to 1."
    )
    weight_of_family: Ratio = Field(
        description="Weight of the family in the composite, likewise; 0 for an unavailable family."
    )
    confidence: Score | None = Field(description="Confidence of the score.")
    direct: ZScore | None = Field(
        description="confidence * weight_of_family * weight_in_family * z."
    )
    ranking: ZScore | None = Field(
        description="Effect of ranking the sums of factors and of families."
    )
    contribution: ZScore | None = Field(description="Part of the composite z: direct + ranking.")
    reason: str | None = Field(description="Reason for a missing value.")
    supporting: RoundedJson | None = Field(None, description="Supporting data of a plug-in.")

    @classmethod
    def of(cls, reading: FactorReading, steps: FactorBreakdown, level: float | None) -> Self:
        return cls(
            **reading._asdict(),
            weight_in_family=steps.weight_in_family,
            weight_of_family=steps.weight_of_family,
            confidence=level,
            direct=steps.direct,
            ranking=steps.ranking,
        )


class FamilyOut(Out):
    """Family of factors: from the weighted sum of its z to its score; null is unavailable."""

    family: Family = Field(description="Name of the family.")
    nominal_weight: Share = Field(
        description="Weight in the algorithm; those of all families add up to 1."
    )
    weight: Ratio = Field(description="`weight_of_family` of its factors.")
    weighted_sum: ZScore | None = Field(description="Sum of weight_in_family * z of its factors.")
    z: ZScore | None = Field(description="Normal score of the weighted sum among all symbols.")
    score: Score | None = Field(description="Phi(z), as in `score`.")
    contribution: ZScore | None = Field(description="Sum of the contributions of its factors.")


class CompositeOut(Out):
    """Composite: from the weighted sum of the families to z; null is unavailable."""

    weighted_sum: ZScore | None = Field(description="Sum of weight * z of the families.")
    composite_z: ZScore | None = Field(
        description="Normal score of the sum among all symbols, or of its residual where it is"
        " neutralised."
    )
    neutralisation: dict[str, ZScore] = Field(
        description="Contributions to z of the exposures that are taken out, by name, and of"
        " ranking the residual; empty without `scoring.neutralise`."
    )
    confidence: Score | None = Field(description="`level` of `confidence`.")
    z: ZScore | None = Field(description="confidence * composite_z; the score is Phi(z).")


class FixedMomentsOut(Out):
    """Moments of earlier boards that replace a rank where too few symbols have a value."""

    name: str = Field(description="A factor, a family (the mean of its factors), or `composite`.")
    mean: Raw = Field(description="Mean of the earlier values, in the unit of the factor.")
    sd: Raw = Field(description="z is (value - mean) / sd within +-3, oriented.")
    symbols: int = Field(description="Number of values on the earlier boards, one board a day.")
    days: int = Field(description="Days with enough symbols to rank.")
    first: date = Field(description="UTC day of the oldest of these boards.")
    last: date = Field(description="UTC day of the newest one.")
    age_days: int = Field(description="Days from the newest one to this board.")

    @classmethod
    def of_board(cls, board: Board) -> list[Self]:
        """Returns the moments that `board` used, sorted by name."""
        today = board.as_of.date()
        return [
            cls(name=name, age_days=(today - moments.last).days, **asdict(moments))
            for name, moments in sorted(board.moments.items())
        ]


class FactorChangeOut(Out):
    """A factor with its raw value and the raw value that it would need."""

    factor: str = Field(description="Name of the factor.")
    unit: str
    raw: Raw = Field(description="Measured value in `unit`.")
    needed: Raw = Field(description="Value that it would need, in `unit`.")


class CounterfactualOut(Out):
    """Smallest change found that brings the symbol among the first `top` ranks.

    All changes together and in full are enough; half of each is not.
    """

    top: int = Field(description="Number of ranks to come among.")
    rank: int = Field(description="Present rank, from 1.")
    is_reachable: bool = Field(
        description="False where even the best value of every factor is not enough, because the "
        "confidence is too low."
    )
    changes: list[FactorChangeOut] = Field(
        description="Empty where the rank is reached already, or cannot be reached."
    )

    @classmethod
    def of(cls, found: Counterfactual) -> Self:
        return cls(
            top=found.top,
            rank=found.rank,
            is_reachable=bool(found.changes) or found.rank <= found.top,
            changes=[FactorChangeOut.model_validate(change) for change in found.changes],
        )


IsProvisional = Annotated[
    bool,
    Field(
        description="An exchange source covers less than `scoring.min_coverage` of the eligible"
        " symbols: the scores are shown, and no decision uses them."
    ),
]
SourceCoverage = Annotated[
    dict[str, Share],
    Field(description="Share of the eligible symbols that each exchange source covers."),
]


class ConfidenceOut(Out):
    """Confidence that shrinks a score towards neutral; `level` is the product of known parts."""

    level: Score = Field(description="Product of the known parts.")
    completeness: Score = Field(
        description="Share of the applicable factor weight that had a value."
    )
    freshness: Score = Field(description="Mean of 2^(-age/half-life) over the sources used.")
    sample: Score = Field(description="n/(n+30) of the daily bars, 1 from 250 on.")
    reliability: Score | None = Field(description="Reliability of past scores; null until known.")

    @classmethod
    def of(cls, confidence: Confidence) -> Self:
        return cls(
            level=confidence.level,
            completeness=confidence.completeness,
            freshness=confidence.freshness,
            sample=confidence.sample,
            reliability=confidence.reliability,
        )


class ScoreOut(Out):
    """Scores of one symbol: 0..1, 0.5 is neutral; null is unavailable, never zero."""

    symbol: str = Field(examples=["BTCUSDT"])
    symbol_id: str | None = Field(
        description="UUID that the symbol has now; null if it is no longer known."
    )
    technical_score: Score | None = Field(
        description="Percentile of the technical family in the universe; high is good."
    )
    fundamental_score: Score | None = Field(
        description="Percentile of the fundamental family in the universe; high is good."
    )
    market_structure_score: Score | None = Field(
        description="Percentile of the market structure family in the universe; high is good."
    )
    risk_score: Score | None = Field(
        description="Percentile of the risk family in the universe: high is good, a low risk."
    )
    composite_score: Score | None = Field(
        description="Phi of the composite z, shrunk by the confidence; high is good. It is not a"
        " percentile: see `rank_percentile`."
    )
    rank_percentile: Share | None = Field(
        description="Share of the ranked symbols that this one equals or beats by its composite:"
        " 1 is the best. Null if unranked."
    )
    confidence_level: Score | None = Field(
        description="Confidence of the scores, from 0 (none) to 1."
    )
    rank: int | None = Field(description="Rank by the requested score.")
    calculation_timestamp: UtcTime = Field(description="UTC time of the calculation.")
    supporting_data: RoundedJson = Field(
        description="z, volatility, confidence parts, contribution per factor, missing factors."
    )
    data_source: DataSource
    status: CardStatus = Field(description="`scored`, or `unavailable` with the reason.")
    reason: str | None = Field(description="Reason for a missing score.", examples=["not_eligible"])

    @classmethod
    def of(cls, board: Board, card: Card, rank: int | None, symbol_id: str | None) -> Self:
        family = card.families.get
        confidence = card.confidence
        return cls(
            symbol=card.symbol,
            symbol_id=symbol_id,
            rank_percentile=_rank_percentile(board, card),
            technical_score=family(Family.TECHNICAL),
            fundamental_score=family(Family.FUNDAMENTAL),
            market_structure_score=family(Family.MARKET_STRUCTURE),
            risk_score=family(Family.RISK),
            composite_score=card.composite,
            confidence_level=None if confidence is None else confidence.level,
            rank=rank,
            calculation_timestamp=board.calculated_at,
            supporting_data=_supporting_data(board, card),
            data_source=board.data_source,
            status=card.status,
            reason=card.reason,
        )


class RankingsOut(Freshness):
    """Symbols with the requested score, best first, then all others by symbol."""

    run_id: str
    algorithm_type: AlgorithmType = Field(description="Score by which the list is ordered.")
    calculated_at: UtcTime
    universe_size: int = Field(description="Symbols that were ranked.")
    is_provisional: IsProvisional
    source_coverage: SourceCoverage
    total: int = Field(description="Symbols on the board, before the limit.")
    items: list[ScoreOut]

    @classmethod
    def of(
        cls,
        board: Board,
        status: DataStatus,
        algorithm: AlgorithmType,
        lines: tuple[RankedCard, ...],
        limit: int,
        id_of: Callable[[str], str | None],
    ) -> Self:
        return cls(
            as_of=board.as_of,
            data_source=board.data_source,
            data_status=status,
            run_id=board.run_id,
            algorithm_type=algorithm,
            calculated_at=board.calculated_at,
            universe_size=board.universe_size,
            is_provisional=board.is_provisional,
            source_coverage=dict(board.source_coverage),
            total=len(lines),
            items=[
                ScoreOut.of(board, line.card, line.rank, id_of(line.card.symbol))
                for line in lines[:limit]
            ],
        )


class ExplanationOut(Freshness):
    """Explanation of a score: z is the sum of contributions, the score is Phi(z)."""

    run_id: str
    algorithm: str
    algorithm_version: int
    configuration_version: int
    input_hash: str
    score: ScoreOut = Field(description="Scores of the symbol.")
    z: ZScore | None = Field(
        description="Composite z after the confidence has shrunk it; null if unavailable."
    )
    sum_of_contributions: ZScore | None = Field(
        description="Sum of the contributions, equal to `z` within 1e-9."
    )
    formula: str = Field(description="Formula of contributions and scores in the names below.")
    why_percentiles_differ: str = Field(
        description="Why the composite is no mean of the family scores."
    )
    confidence: ConfidenceOut | None = Field(
        description="Confidence by its parts; null if unavailable."
    )
    detail: str | None = Field(
        description="Failed eligibility rule, or the heaviest missing input."
    )
    universe_size: int = Field(description="Number of scored symbols.")
    is_provisional: IsProvisional
    source_coverage: SourceCoverage
    factors: list[FactorOut] = Field(description="Factors in the order of the algorithm.")
    families: list[FamilyOut] = Field(description="Families in the order of the algorithm.")
    composite: CompositeOut = Field(description="Steps from the families to the composite z.")
    fixed_moments: list[FixedMomentsOut] = Field(
        description="Moments of earlier boards, used where fewer than ten symbols have a value."
    )
    counterfactual: CounterfactualOut | None = Field(
        description="Change needed to rank among the first `top`; null for an unranked symbol."
    )

    @classmethod
    def of(
        cls,
        board: Board,
        card: Card,
        status: DataStatus,
        counterfactual: Counterfactual | None,
        symbol_id: str | None,
    ) -> Self:
        steps = explain_card(card)
        level = None if card.confidence is None else card.confidence.level
        return cls(
            as_of=board.as_of,
            data_source=board.data_source,
            data_status=status,
            run_id=board.run_id,
            algorithm=board.algorithm,
            algorithm_version=board.algorithm_version,
            configuration_version=board.configuration_version,
            input_hash=board.input_hash,
            score=ScoreOut.of(board, card, card.rank, symbol_id),
            z=card.z,
            sum_of_contributions=steps.sum_of_contributions,
            formula=FORMULA,
            why_percentiles_differ=WHY_PERCENTILES_DIFFER,
            confidence=None if card.confidence is None else ConfidenceOut.of(card.confidence),
            detail=card.detail,
            universe_size=board.universe_size,
            is_provisional=board.is_provisional,
            source_coverage=dict(board.source_coverage),
            factors=[
                FactorOut.of(reading, one, level)
                for reading, one in zip(card.factors, steps.factors, strict=True)
            ],
            families=[FamilyOut.model_validate(one) for one in steps.families],
            composite=CompositeOut(
                weighted_sum=steps.weighted_sum,
                composite_z=steps.composite_z,
                neutralisation=dict(steps.neutralisation),
                confidence=level,
                z=card.z,
            ),
            fixed_moments=FixedMomentsOut.of_board(board),
            counterfactual=None if counterfactual is None else CounterfactualOut.of(counterfactual),
        )


def _rank_percentile(board: Board, card: Card) -> float | None:
    """Returns the share of ranked symbols with the same or a worse rank; None if unranked."""
    if card.rank is None or not board.universe_size:
        return None
    return (board.universe_size - card.rank + 1) / board.universe_size


def _supporting_data(board: Board, card: Card) -> dict[str, object]:
    confidence = card.confidence
    return {
        "run_id": board.run_id,
        "z": card.z,
        "volatility": card.volatility,
        "detail": card.detail,
        "confidence": None
        if confidence is None
        else {
            "completeness": confidence.completeness,
            "freshness": confidence.freshness,
            "sample": confidence.sample,
            "reliability": confidence.reliability,
        },
        "contributions": {
            one.name: one.contribution for one in card.factors if one.contribution is not None
        },
        "missing": {one.name: one.reason for one in card.factors if one.reason is not None},
    }
