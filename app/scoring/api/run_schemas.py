"""Models of scoring runs, their replays, and algorithms."""

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family, Neutralisation
from app.foundation.data_status import DataStatus
from app.foundation.http.schemas import (
    ChangeRequest,
    Freshness,
    Json,
    Milliseconds,
    Out,
    QuoteAmount,
    Score,
    Share,
    UtcTime,
    example,
)
from app.market.domain.symbols import SymbolEntry
from app.scoring.api.schemas import IsProvisional, ScoreOut, SourceCoverage
from app.scoring.domain.algorithm import CROSS_SECTIONAL, IMPACT
from app.scoring.domain.board import Board
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.ranking import AlgorithmType
from app.scoring.services.algorithm_versions import AlgorithmVersion, spec_to_json
from app.scoring.services.replay import RunReplayResult


class UnavailableOut(Out):
    symbol: str
    reason: str | None
    detail: str | None = Field(description="Cause with its facts; null without one.")


class SpreadOut(Out):
    """Distribution of the scores of a run."""

    lowest: Score = Field(description="Lowest composite score.")
    lower_quartile: Score = Field(description="Lower quartile of the composite scores.")
    median: Score = Field(description="Median of the composite scores.")
    upper_quartile: Score = Field(description="Upper quartile of the composite scores.")
    highest: Score = Field(description="Highest composite score.")


class RunOut(Freshness):
    """One scoring run: metadata, coverage and distribution of its scores."""

    run_id: str
    algorithm: str
    algorithm_version: int
    configuration_version: int
    calculated_at: UtcTime
    duration_ms: Milliseconds
    input_hash: str
    symbols_processed: int
    scores_calculated: int
    coverage: dict[str, Share] = Field(description="Share of eligible symbols with each factor.")
    is_provisional: IsProvisional
    source_coverage: SourceCoverage
    median_confidence: Score | None = Field(description="Median confidence of the scored symbols.")
    score_spread: SpreadOut | None = Field(
        description="Distribution of the composite scores; null without a score."
    )
    unavailable_by_reason: dict[str, int] = Field(
        description="Number of symbols without a score by reason."
    )

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
    unavailable: list[UnavailableOut] = Field(
        description="Symbols without a score, with the reason."
    )
    is_provisional: IsProvisional
    source_coverage: SourceCoverage
    duration_ms: Milliseconds
    score: ScoreOut | None = Field(description="The score of the requested symbol.")

    @classmethod
    def of(cls, board: Board, status: DataStatus, symbol: SymbolEntry | None) -> Self:
        name = None if symbol is None else symbol.symbol
        cards = [card for card in board.cards if name in (None, card.symbol)]
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
            score=ScoreOut.of(board, cards[0], cards[0].rank, symbol.symbol_id)
            if symbol is not None and cards
            else None,
        )


class AlgorithmOut(Out):
    """The composite or one family: weights and factor table."""

    name: AlgorithmType = Field(description="Name of its ranking.")
    algorithm: str = Field(
        description="Name in boards, one for the composite and its families.",
        examples=[CROSS_SECTIONAL],
    )
    version: int = Field(description="Version of the algorithm.")
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

    model_config = example({"impact_notional": 20000, "reason": "larger orders"})

    family_weights: dict[str, Share] | None = Field(
        None,
        description="Shares of the composite by family; they add up to 1. For the composite only.",
        max_length=16,
    )
    factor_weights: dict[str, Share] | None = Field(
        None,
        description="Share of the family, 0..1, by factor; 0 shows the factor without counting it.",
        max_length=256,
    )
    impact_notional: QuoteAmount | None = Field(
        None, description="Notional of the factor `impact`, in quote currency."
    )
    neutralise: Annotated[Neutralisation, Field(strict=False)] | None = Field(
        None,
        description="Exposures that the composite is made independent of. For the composite only.",
    )

    def changes(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True, exclude={"reason", "user"})


class AlgorithmChangedOut(Out):
    """Algorithm of the next run."""

    name: AlgorithmName = Field(description="Name of the algorithm.")
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
    is_identical: bool = Field(
        description="True if the replay gives the stored board, hash for hash."
    )
    input_hash: str
    replayed_input_hash: str = Field(
        description="SHA-256 of the inputs of the replay, in hexadecimal."
    )
    board_hash: str = Field(description="Hash of all values of the board, to the last bit.")
    replayed_board_hash: str = Field(
        description="SHA-256 of the board of the replay, in hexadecimal."
    )
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
