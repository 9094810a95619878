"""Cache of score reliability and noise, which cost thirty scorings to compute."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.market.domain.models import Floats
from app.market.domain.panel import Panel, ScoringInputs, without_future
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.factors import Factor
from app.scoring.domain.input_hash import panel_hash
from app.scoring.domain.score_stability import (
    DAYS,
    DayMeasurements,
    back_measurements,
    back_scores,
    reliability_from_scores,
    weekly_noise,
)
from app.scoring.services.algorithm_versions import spec_to_json


@dataclass(slots=True)
class ScoreReliabilityCache:
    """Reliability and noise of scores, recomputed when daily candles or the algorithm change.

    `days` is the number of past days. One scoring runs at a time, so no lock is needed.
    """

    days: int = DAYS
    _cached: tuple[tuple[str, str], Floats, Floats] | None = field(default=None, init=False)
    _measured: tuple[tuple[object, ...], tuple[DayMeasurements, ...]] | None = field(
        default=None, init=False
    )

    def fork(self) -> "ScoreReliabilityCache":
        """Returns a cache with the same values, for a scoring beside the running one."""
        other = ScoreReliabilityCache(self.days)
        other._cached, other._measured = self._cached, self._measured
        return other

    def reliability(self, inputs: ScoringInputs, spec: AlgorithmSpec) -> Floats:
        """(N,) reliability in 0..1, NaN where unknown."""
        return self._current(inputs, spec)[1]

    def noise(self, inputs: ScoringInputs, spec: AlgorithmSpec) -> Floats:
        """(N,) noise of the composite z over a week, NaN where unknown."""
        return self._current(inputs, spec)[2]

    def _current(
        self, inputs: ScoringInputs, spec: AlgorithmSpec
    ) -> tuple[tuple[str, str], Floats, Floats]:
        daily = without_future(inputs).daily
        key = panel_hash(daily), json.dumps(spec_to_json(spec))
        if self._cached is None or self._cached[0] != key:
            scores = back_scores(daily, spec, self.days, self._measurements)
            self._cached = key, reliability_from_scores(scores), weekly_noise(scores)
        return self._cached

    def _measurements(
        self, daily: Panel, factors: Sequence[Factor], days: int
    ) -> tuple[DayMeasurements, ...]:
        """Measures of past days; other weights of the same factors reuse them."""
        key = (panel_hash(daily), days, *((one.name, one.measure) for one in factors))
        if self._measured is None or self._measured[0] != key:
            self._measured = key, back_measurements(daily, factors, days)
        return self._measured[1]
