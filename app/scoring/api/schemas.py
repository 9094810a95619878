"""Shapes of scores: a card on a board, its explanation, a run."""

from collections import Counter
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from app.foundation.http.schemas import Freshness, Json, Out, Score, UtcTime
from app.market.domain.models import DataSource, DataStatus
from app.scoring.api.score_entry import EntryOut, FactorOut, FixedMomentsOut
from app.scoring.domain.board import Board, Card, CardStatus, Confidence, Family
from app.scoring.domain.counterfactual import Entry
from app.scoring.domain.ranking import AlgorithmType, Ranked
from app.scoring.services.algorithm_versions import AlgorithmFacts

IsProvisional = Annotated[
    bool,
    Field(
        description="An exchange source covers less than `scoring.min_coverage` of the eligible"
        " symbols: the scores are shown, no decision uses them."
    ),
]
SourceCoverage = Annotated[
    dict[str, float],
    Field(description="Share of the eligible symbols that each exchange source covers."),
]


class ConfidenceOut(Out):
    """How far a score is shrunk towards neutral; the level is the product of the known parts."""

    level: Score
    completeness: Score = Field(
        description="Share of the factor weight that can apply which had a value."
    )
    freshness: Score = Field(description="Mean of 2^(-age/half-life) over the sources used.")
    sample: Score = Field(description="n/(n+30) of the daily bars, 1 from 250 on.")
    reliability: Score | None = Field(description="Steadiness of past scores; null until known.")

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
    """One symbol's line. Scores are 0..1, 0.5 is neutral; null is unavailable, never zero."""

    symbol: str = Field(examples=["BTCUSDT"])
    technical_score: Score | None
    fundamental_score: Score | None
    market_structure_score: Score | None
    risk_score: Score | None
    composite_score: Score | None
    confidence_level: Score | None
    rank: int | None = Field(description="Place in the order asked for.")
    calculation_timestamp: UtcTime
    supporting_data: Json = Field(
        description="z, volatility, confidence parts, contribution per factor, what is missing."
    )
    data_source: DataSource
    status: CardStatus
    reason: str | None = Field(description="Why there is no score.", examples=["not_eligible"])

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
            supporting_data=_supporting(board, card),
            data_source=board.data_source,
            status=card.status,
            reason=card.reason,
        )


class RankingsOut(Freshness):
    """Best first; after the scored ones, by symbol, those without this score."""

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
        lines: tuple[Ranked, ...],
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
    """Where a score comes from: z is the sum of contributions, the score is Phi(z)."""

    run_id: str
    algorithm: str
    algorithm_version: int
    configuration_version: int
    input_hash: str
    score: ScoreOut
    z: float | None
    sum_of_contributions: float | None
    confidence: ConfidenceOut | None
    detail: str | None = Field(description="The failed rule, or what is missing most.")
    universe_size: int
    is_provisional: IsProvisional
    source_coverage: SourceCoverage
    factors: list[FactorOut]
    fixed_moments: list[FixedMomentsOut] = Field(
        description="Where under ten symbols are known: the earlier boards they are measured by."
    )
    entry: EntryOut | None = Field(
        description="What it takes to enter the first `top`; null for a symbol without a rank."
    )

    @classmethod
    def of(cls, board: Board, card: Card, status: DataStatus, entry: Entry | None) -> Self:
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
            entry=None if entry is None else EntryOut.of(entry),
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
    """One scoring run: circumstances, coverage, spread of its scores."""

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


class CalculatedOut(Freshness):
    """What a calculation did; with `symbol` given, the counts and lists speak of it alone."""

    run_id: str
    symbols_processed: int
    scores_calculated: int
    unavailable: list[UnavailableOut]
    is_provisional: IsProvisional
    source_coverage: SourceCoverage
    duration_ms: float
    score: ScoreOut | None = Field(description="The score of the symbol asked for.")

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
    """An algorithm in force: what it ranks by, its weights and its factor table."""

    name: str
    version: int
    algorithm_types: list[AlgorithmType]
    parameters: Json
    created_at: UtcTime | None = Field(description="Null until its first run.")

    @classmethod
    def of(cls, facts: AlgorithmFacts) -> Self:
        return cls(
            name=facts.name,
            version=facts.version,
            algorithm_types=list(AlgorithmType),
            parameters=facts.body,
            created_at=facts.created_at,
        )


def _spread(scores: list[float]) -> SpreadOut:
    lowest, lower, median, upper, highest = np.quantile(scores, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return SpreadOut(
        lowest=lowest, lower_quartile=lower, median=median, upper_quartile=upper, highest=highest
    )


def _supporting(board: Board, card: Card) -> dict[str, object]:
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
