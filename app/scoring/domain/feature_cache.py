"""Reuses raw factor values while the closed candles that they are computed from do not change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from app.configuration.domain.sections import Source
from app.market.domain.models import Floats
from app.market.domain.panel import Panel, ScoringInputs, UnbrokenPanel, bridged, unbroken
from app.scoring.domain.factors import Factor

_CANDLES: Final[Mapping[Source, str]] = {
    Source.DAILY_CANDLES: "daily",
    Source.HOURLY_CANDLES: "hourly",
}


@dataclass(slots=True)
class FeatureCache:
    """Newest values of each factor whose sources are candles alone. One scoring runs at a time.

    A panel is one object until a bar of it changes, a symbol comes or goes: then all columns are
    computed, because 10 ms for a universe are not worth bookkeeping by column. `computed` and
    `reused` count values, one for each symbol and factor, of all runs.
    """

    computed: int = field(default=0, init=False)
    reused: int = field(default=0, init=False)
    _known: dict[str, tuple[Factor, tuple[Panel, ...], Floats]] = field(
        default_factory=dict, init=False
    )

    def measure(self, factor: Factor, inputs: ScoringInputs) -> Floats:
        """(N,) raw values of one factor, which nobody may write to."""
        if not factor.sources or not set(factor.sources) <= _CANDLES.keys():
            self.computed += len(inputs.symbols)
            return factor.measure(inputs)
        panels = tuple(getattr(inputs, _CANDLES[source]) for source in factor.sources)
        known = self._known.get(factor.name)
        if (
            known is not None
            and known[0].measure is factor.measure
            and len(known[1]) == len(panels)
            and all(one is other for one, other in zip(known[1], panels, strict=True))
        ):
            self.reused += len(inputs.symbols)
            return known[2]
        values = factor.measure(inputs)
        self.computed += len(inputs.symbols)
        self._known[factor.name] = factor, panels, values
        return values


@lru_cache(maxsize=2)  # by identity: daily and hourly bars serve every run until one closes
def prepared(panel: Panel) -> UnbrokenPanel:
    """The bars after the last break of each symbol, with short gaps filled."""
    return bridged(unbroken(panel))[0]
