"""Plug-in scoring algorithm as a factor of the composite.

The plug-in's score is shrunk towards neutral by its own confidence and ranked like any factor.
Explanations list it with its supporting data, and it moves a score by its weight alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from app.configuration.domain.sections import Family, Source
from app.market.domain.models import Floats
from app.market.domain.panel import ScoringInputs
from app.scoring.domain.factors import Factor

NO_SCORE: Final = "no_plugin_score"
_NEUTRAL: Final = 0.5
Support = Mapping[str, str | float | bool | None]


@dataclass(frozen=True, slots=True, eq=False)
class AlgorithmScores:
    """Scores and confidence (N,) in 0..1, NaN where missing, with supporting data per symbol."""

    scores: Floats
    confidence: Floats
    supporting: Sequence[Support]


class ScoringAlgorithm(Protocol):
    """Interface of an entry point of `my_symbols.algorithms`."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def family(self) -> Family: ...

    @property
    def weight(self) -> float:
        """Share of the family, in addition to the factors of the table."""
        ...

    @property
    def sources(self) -> tuple[Source, ...]:
        """Data sources of the algorithm; a missing or stale source makes its score missing."""
        ...

    def score(self, inputs: ScoringInputs) -> AlgorithmScores: ...


def to_factor(algorithm: ScoringAlgorithm) -> Factor:
    """Returns the algorithm as a row of the factor table."""
    cached = _CachedAlgorithm(algorithm)
    return Factor(
        algorithm.name,
        algorithm.family,
        +1,
        algorithm.weight,
        "0..1",
        algorithm.sources,
        cached.measure,
        NO_SCORE,
        f"{algorithm.name} {algorithm.version}, shrunk towards neutral by its confidence",
        support=cached.support,
    )


@dataclass(slots=True)
class _CachedAlgorithm:
    """Calls the algorithm once per inputs: score and supporting data come from one call."""

    algorithm: ScoringAlgorithm
    _last: tuple[ScoringInputs, AlgorithmScores] | None = field(default=None, init=False)

    def measure(self, inputs: ScoringInputs) -> Floats:
        result = self._scores(inputs)
        shrunk = _NEUTRAL + result.confidence * (result.scores - _NEUTRAL)
        is_valid = (result.scores >= 0.0) & (result.scores <= 1.0)
        is_valid &= (result.confidence >= 0.0) & (result.confidence <= 1.0)
        return np.where(is_valid, shrunk, np.nan)

    def support(self, inputs: ScoringInputs) -> tuple[Support, ...]:
        result = self._scores(inputs)
        return tuple(
            {
                "score": _known(score),
                "confidence": _known(confidence),
                **{str(name): _plain(value) for name, value in supporting.items()},
            }
            for score, confidence, supporting in zip(
                result.scores.tolist(), result.confidence.tolist(), result.supporting, strict=True
            )
        )

    def _scores(self, inputs: ScoringInputs) -> AlgorithmScores:
        if self._last is None or self._last[0] is not inputs:
            self._last = inputs, self.algorithm.score(inputs)
        return self._last[1]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: object) -> str | float | bool | None:
    """Value as a JSON scalar; other types become text."""
    if isinstance(value, float):
        return _known(value)
    return value if value is None or isinstance(value, str | int | bool) else str(value)
