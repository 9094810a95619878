"""Settings of the scoring beside the weights of its families."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from app.configuration.domain.fields import setting


@dataclass(frozen=True, slots=True)
class ScoringRules:
    """`factor_weights` by name are shares of a family; who is not named has that of the table."""

    impact_notional: float = setting(20_000.0, 1.0, 1e9)  # quote currency, swept at once
    # Share of the eligible symbols that each exchange source must cover before a board decides.
    min_coverage: float = setting(0.9, 0.0, 1.0)
    factor_weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
