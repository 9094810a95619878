"""A whole scoring algorithm from outside, as one more factor of the composite.

Its score is drawn towards neutral by its own confidence and then ranked like any factor: it gets a
line in every explanation, with what it says in support, and moves a score by its weight alone.
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

NO_OPINION: Final = "no_opinion"
_NEUTRAL: Final = 0.5
Support = Mapping[str, str | float | bool | None]


@dataclass(frozen=True, slots=True, eq=False)
class Opinion:
    """Of every symbol, (N,): score and confidence in 0..1, NaN where it has none; and why."""

    scores: Floats
    confidence: Floats
    supporting: Sequence[Support]


class ScoringAlgorithm(Protocol):
    """What an entry point of `my_symbols.algorithms` names."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def family(self) -> Family: ...

    @property
    def weight(self) -> float:
        """Share of the family beside the factors of the table."""
        ...

    @property
    def sources(self) -> tuple[Source, ...]:
        """What it looks at; where one is missing or too old it is not counted."""
        ...

    def score(self, inputs: ScoringInputs) -> Opinion: ...


def as_factor(algorithm: ScoringAlgorithm) -> Factor:
    """The algorithm as a row of the factor table."""
    opinions = _Opinions(algorithm)
    return Factor(
        algorithm.name,
        algorithm.family,
        +1,
        algorithm.weight,
        "0..1",
        algorithm.sources,
        opinions.measure,
        NO_OPINION,
        f"{algorithm.name} {algorithm.version}, drawn towards neutral by its confidence",
        support=opinions.support,
    )


@dataclass(slots=True)
class _Opinions:
    """Asks once for the same inputs: the score and what supports it are one answer."""

    algorithm: ScoringAlgorithm
    _last: tuple[ScoringInputs, Opinion] | None = field(default=None, init=False)

    def measure(self, inputs: ScoringInputs) -> Floats:
        told = self._of(inputs)
        drawn = _NEUTRAL + told.confidence * (told.scores - _NEUTRAL)
        known = (told.scores >= 0.0) & (told.scores <= 1.0)
        known &= (told.confidence >= 0.0) & (told.confidence <= 1.0)
        return np.where(known, drawn, np.nan)

    def support(self, inputs: ScoringInputs) -> tuple[Support, ...]:
        told = self._of(inputs)
        return tuple(
            {
                "score": _known(score),
                "confidence": _known(confidence),
                **{str(name): _plain(value) for name, value in said.items()},
            }
            for score, confidence, said in zip(
                told.scores.tolist(), told.confidence.tolist(), told.supporting, strict=True
            )
        )

    def _of(self, inputs: ScoringInputs) -> Opinion:
        if self._last is None or self._last[0] is not inputs:
            self._last = inputs, self.algorithm.score(inputs)
        return self._last[1]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: object) -> str | float | bool | None:
    """What JSON knows; anything else as its text."""
    if isinstance(value, float):
        return _known(value)
    return value if value is None or isinstance(value, str | int | bool) else str(value)
