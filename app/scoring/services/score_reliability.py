"""Cache of score reliability and noise: a month of past scores takes thirty scorings."""

import json
from dataclasses import dataclass, field

from app.market.domain.models import Floats
from app.market.domain.panel import ScoringInputs, without_future
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.input_hash import panel_hash
from app.scoring.domain.score_stability import DAYS, back_scores, noise_of_level, reliability_of
from app.scoring.services.algorithm_versions import body_of


@dataclass(slots=True)
class ScoreReliabilityCache:
    """Reliability of scores, computed anew when daily candles or the algorithm change.

    `days` is the number of past days. One scoring runs at a time, so that no lock is needed.
    """

    days: int = DAYS
    _cached: tuple[tuple[str, str], Floats, Floats] | None = field(default=None, init=False)

    def of(self, inputs: ScoringInputs, spec: AlgorithmSpec) -> Floats:
        """(N,) in 0..1, NaN where it is not known."""
        return self._current(inputs, spec)[1]

    def noise(self, inputs: ScoringInputs, spec: AlgorithmSpec) -> Floats:
        """(N,) noise of the composite z over a week, NaN where it is not known."""
        return self._current(inputs, spec)[2]

    def _current(
        self, inputs: ScoringInputs, spec: AlgorithmSpec
    ) -> tuple[tuple[str, str], Floats, Floats]:
        daily = without_future(inputs).daily
        key = panel_hash(daily), json.dumps(body_of(spec))
        if self._cached is None or self._cached[0] != key:
            scores = back_scores(daily, spec, self.days)
            self._cached = key, reliability_of(scores), noise_of_level(scores)
        return self._cached
