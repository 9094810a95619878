"""Isolates factors of other packages: a fault in their code costs their own values only."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import structlog

from app.configuration.domain.sections import Family, Source
from app.market.domain.models import Floats
from app.market.domain.panel import ScoringInputs
from app.scoring.domain.factors import Factor

_log = structlog.get_logger("plugins")


def is_sound(factor: Any) -> bool:
    """True if a factor can stand in the table."""
    return (
        isinstance(factor.family, Family)
        and factor.orientation in {-1, 1}
        and isinstance(factor.weight, int | float)
        and 0.0 <= factor.weight <= 1.0
        and bool(factor.sources)
        and all(isinstance(one, Source) for one in factor.sources)
        and callable(factor.measure)
    )


def guarded(factor: Factor) -> Factor:
    """The same; where it fails, or gives no number per symbol, none is known."""

    def measure(inputs: ScoringInputs) -> Floats:
        count = len(inputs.symbols)
        try:
            values = np.asarray(factor.measure(inputs), np.float64)
        except Exception as error:  # noqa: BLE001  # a plug-in may raise anything
            _failed(factor, type(error).__name__)
            return np.full(count, np.nan)
        if values.shape != (count,):
            _failed(factor, f"shape {values.shape}")
            return np.full(count, np.nan)
        return values

    def support(inputs: ScoringInputs) -> Sequence[Mapping[str, Any] | None]:
        nothing: list[Mapping[str, Any] | None] = [None] * len(inputs.symbols)
        if factor.support is None:
            return nothing
        try:
            said = list(factor.support(inputs))
        except Exception as error:  # noqa: BLE001  # as above
            _failed(factor, type(error).__name__)
            return nothing
        return said if len(said) == len(nothing) else nothing

    return replace(factor, measure=measure, support=None if factor.support is None else support)


def _failed(factor: Factor, reason: str) -> None:
    _log.warning("factor_failed", factor=factor.name, reason=reason)
