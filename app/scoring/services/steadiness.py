"""How reliable scores are, looked into once per closed day: a month takes thirty scorings."""

import json
from dataclasses import dataclass, field

from app.market.domain.models import Floats
from app.market.domain.panel import ScoringInputs, known_at
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.input_hash import panel_hash
from app.scoring.domain.score_stability import DAYS, back_scores, noise_of_level, reliability_of
from app.scoring.services.algorithm_versions import body_of


@dataclass(slots=True)
class Steadiness:
    """Keeps the last answer, for as long as the daily candles and the algorithm are the same.

    `days` is how far it looks back. One scoring runs at a time: there is nothing to lock.
    """

    days: int = DAYS
    _kept: tuple[tuple[str, str], Floats, Floats] | None = field(default=None, init=False)

    def of(self, inputs: ScoringInputs, spec: AlgorithmSpec) -> Floats:
        """(N,) in 0..1, NaN where it is not known."""
        return self._looked(inputs, spec)[1]

    def noise(self, inputs: ScoringInputs, spec: AlgorithmSpec) -> Floats:
        """(N,) noise of the composite z over a week, NaN where it is not known."""
        return self._looked(inputs, spec)[2]

    def _looked(
        self, inputs: ScoringInputs, spec: AlgorithmSpec
    ) -> tuple[tuple[str, str], Floats, Floats]:
        daily = known_at(inputs).daily
        key = panel_hash(daily), json.dumps(body_of(spec))
        if self._kept is None or self._kept[0] != key:
            scores = back_scores(daily, spec, self.days)
            self._kept = key, reliability_of(scores), noise_of_level(scores)
        return self._kept
