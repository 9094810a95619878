"""Response models of scores, explanations, runs and algorithms."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.http.schemas import ChangeRequest, Freshness, Json, Out, Score, UtcTime
from app.scoring.domain.algorithm import CROSS_SECTIONAL, IMPACT
from app.scoring.domain.board import Board, Card, CardStatus, Confidence
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.counterfactual import Counterfactual
from app.scoring.domain.ranking import AlgorithmType, RankedCard
from app.scoring.services.algorithm_versions import AlgorithmVersion, spec_to_json
from app.scoring.services.replay import RunReplayResult


class FactorOut(Out):
    """One factor; contributions of all factors add up to the composite z."""

    name: str
    family: Family
    raw: float | None
    unit: str
    z: float | None
    weight: float
    contribution: float | None
    reason: str | None = Field(description="Reason for a missing value.")
    supporting: Json | None = Field(None, description="Supporting data of a plug-in.")


class FixedMomentsOut(Out):
    """Moments of earlier boards that replace a rank where too few symbols have a value."""

    name: str = Field(description="A factor, a family (the mean of its factors), or `composite`.")
    mean: float
    sd: float = Field(description="z is (value - mean) / sd within +-3, oriented.")
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

    factor: str
    unit: str
    raw: float
    needed: float


class CounterfactualOut(Out):
    """Smallest change found that brings the symbol among the first `top` ranks.

    All changes together and in full are enough; half of each is not.
    """

    top: int
    rank: int
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
    dict[str, float],
    Field(description="Share of the eligible symbols that each exchange source covers."),
]


class ConfidenceOut(Out):
    """Confidence that shrinks a score towards neutral; `level` is the product of known parts."""

    level: Score
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
    technical_score: Score | None
    fundamental_score: Score | None
    market_structure_score: Score | None
    risk_score: Score | None
    composite_score: Score | None
    confidence_level: Score | None
    rank: int | None = Field(description="Rank by the requested score.")
    calculation_timestamp: UtcTime
    supporting_data: Json = Field(
        description="z, volatility, confidence parts, contribution per factor, missing factors."
    )
    data_source: DataSource
    status: CardStatus
    reason: str | None = Field(description="Reason for a missing score.", examples=["not_eligible"])

    @classmethod
    def of(cls, board: Board, card: Card, rank: int | None) -> Self:
        family = card.families.get
        confidence = card.confidence
        return cls(
            symbol=card.symbol,
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
    algorithm_type: AlgorithmType
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
            items=[ScoreOut.of(board, line.card, line.rank) for line in lines[:limit]],
        )


class ExplanationOut(Freshness):
    """Explanation of a score: z is the sum of contributions, the score is Phi(z)."""

    run_id: str
    algorithm: str
    algorithm_version: int
    configuration_version: int
    input_hash: str
    score: ScoreOut
    z: float | None
    sum_of_contributions: float | None
    confidence: ConfidenceOut | None
    detail: str | None = Field(
        description="Failed eligibility rule, or the heaviest missing input."
    )
    universe_size: int
    is_provisional: IsProvisional
    source_coverage: SourceCoverage
    factors: list[FactorOut]
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
    ) -> Self:
        shares = [one.contribution for one in card.factors if one.contribution is not None]
        return cls(
            as_of=board.as_of,
            data_source=board.data_source,
            data_status=status,
            run_id=board.run_id,
            algorithm=board.algorithm,
            algorithm_version=board.algorithm_version,
            configuration_version=board.configuration_version,
            input_hash=board.input_hash,
            score=ScoreOut.of(board, card, card.rank),
            z=card.z,
            sum_of_contributions=None if card.z is None else sum(shares),
            confidence=None if card.confidence is None else ConfidenceOut.of(card.confidence),
            detail=card.detail,
            universe_size=board.universe_size,
            is_provisional=board.is_provisional,
            source_coverage=dict(board.source_coverage),
            factors=[FactorOut.model_validate(one) for one in card.factors],
            fixed_moments=FixedMomentsOut.of_board(board),
            counterfactual=None if counterfactual is None else CounterfactualOut.of(counterfactual),
        )


class UnavailableOut(Out):
    symbol: str
    reason: str | None
    detail: str | None


class SpreadOut(Out):
    """Distribution of the scores of a run."""

    lowest: Score
    lower_quartile: Score
    median: Score
    upper_quartile: Score
    highest: Score


class RunOut(Freshness):
    """One scoring run: metadata, coverage and distribution of its scores."""

    run_id: str
    algorithm: str
    algorithm_version: int
    configuration_version: int
    calculated_at: UtcTime
    duration_ms: float
    input_hash: str
    symbols_processed: int
    scores_calculated: int
    coverage: dict[str, float] = Field(description="Share of eligible symbols with each factor.")
    is_provisional: IsProvisional
    source_coverage: SourceCoverage
    median_confidence: Score | None
    score_spread: SpreadOut | None
    unavailable_by_reason: dict[str, int]

    @classmethod
    def of(cls, board: Board, status: DataStatus) -> Self:
        scores = [card.composite for card in board.cards if card.composite is not None]
        levels = [card.confidence.level for card in board.cards if card.confidence is not None]
        reasons = Counter(card.reason for card in board.cards if card.reason is not None)
        return cls(
            as_of=board.as_of,
            data_source=board.data_source,
            data_status=status,
            run_id=board.run_id,
            algorithm=board.algorithm,
            algorithm_version=board.algorithm_version,
            configuration_version=board.configuration_version,
            calculated_at=board.calculated_at,
            duration_ms=board.duration_ms,
            input_hash=board.input_hash,
            symbols_processed=len(board.cards),
            scores_calculated=board.universe_size,
            coverage=dict(board.coverage),
            is_provisional=board.is_provisional,
            source_coverage=dict(board.source_coverage),
            median_confidence=float(np.median(levels)) if levels else None,
            score_spread=_spread(scores) if scores else None,
            unavailable_by_reason=dict(sorted(reasons.items())),
        )


class CalculationOut(Freshness):
    """Result of a calculation; with `symbol`, counts and lists cover that symbol alone."""

    run_id: str
    symbols_processed: int
    scores_calculated: int
    unavailable: list[UnavailableOut]
    is_provisional: IsProvisional
    source_coverage: SourceCoverage
    duration_ms: float
    score: ScoreOut | None = Field(description="The score of the requested symbol.")

    @classmethod
    def of(cls, board: Board, status: DataStatus, symbol: str | None) -> Self:
        cards = [card for card in board.cards if symbol in (None, card.symbol)]
        return cls(
            as_of=board.as_of,
            data_source=board.data_source,
            data_status=status,
            run_id=board.run_id,
            symbols_processed=len(cards),
            scores_calculated=sum(card.rank is not None for card in cards),
            unavailable=[
                UnavailableOut(symbol=card.symbol, reason=card.reason, detail=card.detail)
                for card in cards
                if card.rank is None
            ],
            is_provisional=board.is_provisional,
            source_coverage=dict(board.source_coverage),
            duration_ms=board.duration_ms,
            score=ScoreOut.of(board, cards[0], cards[0].rank) if symbol and cards else None,
        )


class AlgorithmOut(Out):
    """The composite or one family: weights and factor table."""

    name: AlgorithmType = Field(description="Name of its ranking.")
    algorithm: str = Field(
        description="Name in boards, one for the composite and its families.",
        examples=[CROSS_SECTIONAL],
    )
    version: int
    parameters: Json = Field(description="Of a family only its own factors and weight.")
    created_at: UtcTime | None = Field(description="Null until its first run.")

    @classmethod
    def of(cls, facts: AlgorithmVersion, kind: AlgorithmType) -> Self:
        return cls(
            name=kind,
            algorithm=facts.name,
            version=facts.version,
            parameters=_parameters_of(kind.family, facts.body),
            created_at=facts.created_at,
        )


def _parameters_of(family: Family | None, body: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the composite, or those of one family."""
    if family is None:
        return dict(body)
    factors = [one for one in body["factors"] if one["family"] == family.value]
    weights = {name: one for name, one in body["family_weights"].items() if name == family.value}
    has_impact = any(one["name"] == IMPACT for one in factors)
    parameters = body["parameters"] if has_impact else {}
    return {**body, "family_weights": weights, "parameters": parameters, "factors": factors}


def _spread(scores: list[float]) -> SpreadOut:
    lowest, lower, median, upper, highest = np.quantile(scores, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return SpreadOut(
        lowest=lowest, lower_quartile=lower, median=median, upper_quartile=upper, highest=highest
    )


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


class AlgorithmName(StrEnum):
    """Algorithms that can be changed; the name in boards is another one of the composite."""

    COMPOSITE = "COMPOSITE"
    TECHNICAL = "TECHNICAL"
    FUNDAMENTAL = "FUNDAMENTAL"
    MARKET_STRUCTURE = "MARKET_STRUCTURE"
    RISK = "RISK"
    CROSS_SECTIONAL = CROSS_SECTIONAL

    @property
    def family(self) -> Family | None:
        """Family of the algorithm; None for the composite."""
        return None if self is self.CROSS_SECTIONAL else AlgorithmType(self.value).family


class AlgorithmIn(ChangeRequest):
    """Changes of an algorithm; omitted fields keep their values, null is refused."""

    family_weights: dict[str, float] | None = Field(
        None,
        description="Shares of the composite by family; they add up to 1. For the composite only.",
        max_length=16,
    )
    factor_weights: dict[str, float] | None = Field(
        None,
        description="Share of the family, 0..1, by factor; 0 shows the factor without counting it.",
        max_length=256,
    )
    impact_notional: float | None = Field(
        None, description="Notional of the factor `impact`, in quote currency."
    )

    def changes(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True, exclude={"reason", "user"})


class AlgorithmChangedOut(Out):
    """Algorithm of the next run."""

    name: AlgorithmName
    configuration_version: int
    parameters: Json = Field(description="As returned by `GET /scoring/algorithms`.")

    @classmethod
    def of(cls, name: AlgorithmName, spec: AlgorithmSpec, settings: Configuration) -> Self:
        return cls(
            name=name,
            configuration_version=settings.version,
            parameters=_parameters_of(name.family, spec_to_json(spec)),
        )


class ReplayOut(Out):
    """A stored board compared with its replay; equal hashes mean equal boards."""

    run_id: str
    algorithm: str
    algorithm_version: int
    calculated_at: UtcTime
    is_identical: bool
    input_hash: str
    replayed_input_hash: str
    board_hash: str = Field(description="Hash of all values of the board, to the last bit.")
    replayed_board_hash: str
    differing: list[str] = Field(description="Symbols whose scores differ.")

    @classmethod
    def of(cls, result: RunReplayResult) -> Self:
        return cls(
            run_id=result.board.run_id,
            algorithm=result.board.algorithm,
            algorithm_version=result.board.algorithm_version,
            calculated_at=result.board.calculated_at,
            is_identical=result.is_identical,
            input_hash=result.board.input_hash,
            replayed_input_hash=result.replayed.input_hash,
            board_hash=result.board_hash,
            replayed_board_hash=result.replayed_hash,
            differing=list(result.differing),
        )
