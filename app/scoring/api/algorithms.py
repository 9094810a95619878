"""Shapes of the scoring algorithm as it is changed, and of a run that is made again."""

from enum import StrEnum
from typing import Any, Self

from pydantic import Field

from app.configuration.domain.model import Configuration
from app.foundation.http.request_body import Body
from app.foundation.http.schemas import Json, Out, UtcTime
from app.portfolio.api.schemas import Said
from app.scoring.domain.algorithm import CROSS_SECTIONAL
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.services.algorithm_versions import body_of
from app.scoring.services.replay import Replayed


class AlgorithmName(StrEnum):
    """Algorithms that can be changed."""

    CROSS_SECTIONAL = CROSS_SECTIONAL


class AlgorithmIn(Said):
    """What is left out keeps its value. Null is refused."""

    family_weights: dict[str, float] | None = Field(
        None, description="Shares of the composite by family; together 1.", max_length=16
    )
    factor_weights: dict[str, float] | None = Field(
        None,
        description="Shares of its family, 0..1, by factor; 0 shows it and does not count it.",
        max_length=256,
    )
    impact_notional: float | None = Field(
        None, description="Quote currency that `impact` sweeps a book with."
    )

    def changes(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True, exclude={"reason", "user"})


class ScoringSettingsOut(Out):
    """Of the scoring, beside the weights of its families."""

    impact_notional: float = Field(description="Quote currency that `impact` sweeps a book with.")
    min_coverage: float = Field(
        description="Share of the eligible symbols that each exchange source must cover before"
        " decisions use a board."
    )
    factor_weights: dict[str, float] = Field(
        description="Shares of its family by factor; who is not named has that of the table."
    )


class ScoringSettingsIn(Body):
    impact_notional: float | None = None
    min_coverage: float | None = None
    factor_weights: dict[str, float] | None = Field(None, max_length=256)


class AlgorithmChangedOut(Out):
    """What the next run goes by."""

    name: AlgorithmName
    configuration_version: int
    parameters: Json = Field(description="As `GET /scoring/algorithms` gives them.")

    @classmethod
    def of(cls, name: AlgorithmName, spec: AlgorithmSpec, settings: Configuration) -> Self:
        return cls(name=name, configuration_version=settings.version, parameters=body_of(spec))


class ReplayOut(Out):
    """A stored board and the one that its inputs make now; equal where their hashes are."""

    run_id: str
    algorithm: str
    algorithm_version: int
    calculated_at: UtcTime
    is_identical: bool
    input_hash: str
    replayed_input_hash: str
    board_hash: str = Field(description="Over everything that the board says, to the last bit.")
    replayed_board_hash: str
    differing: list[str] = Field(description="Symbols whose scores are not the same.")

    @classmethod
    def of(cls, found: Replayed) -> Self:
        return cls(
            run_id=found.board.run_id,
            algorithm=found.board.algorithm,
            algorithm_version=found.board.algorithm_version,
            calculated_at=found.board.calculated_at,
            is_identical=found.is_identical,
            input_hash=found.board.input_hash,
            replayed_input_hash=found.again.input_hash,
            board_hash=found.board_hash,
            replayed_board_hash=found.again_hash,
            differing=list(found.differing),
        )
