"""The scoring algorithm that settings describe, and the settings that a change of it means."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from app.configuration.domain.document import (
    Complaint,
    ConfigurationRefusedError,
    echoed_key,
    validate,
)
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family
from app.foundation.errors import Code
from app.scoring.domain import market_factors as factors_market
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.factors import FACTORS, Factor

CROSS_SECTIONAL: Final = "cross_sectional"
_NOTIONAL: Final = "impact_notional"
_IMPACT: Final = "impact"
_WEIGHTS: Final = "scoring.factor_weights"


def algorithm(settings: Configuration, table: tuple[Factor, ...] = FACTORS) -> AlgorithmSpec:
    """The algorithm in force under these settings."""
    rules = settings.scoring
    weighed = tuple(
        replace(factor, weight=rules.factor_weights.get(factor.name, factor.weight))
        for factor in table
    )
    return made(
        CROSS_SECTIONAL, settings.family_weights, weighed, {_NOTIONAL: rules.impact_notional}
    )


def made(
    name: str,
    weights: Mapping[Family, float],
    factors: Iterable[Factor],
    parameters: Mapping[str, float],
) -> AlgorithmSpec:
    """An algorithm whose factors measure with these parameters."""
    impact = partial(factors_market.impact, notional=parameters[_NOTIONAL])
    support = partial(factors_market.impact_support, notional=parameters[_NOTIONAL])
    told = tuple(
        replace(one, measure=impact, support=support) if one.name == _IMPACT else one
        for one in factors
    )
    return AlgorithmSpec(name, weights, told, parameters=parameters)


def changes_of(
    wanted: Mapping[str, object], present: Configuration, table: tuple[Factor, ...] = FACTORS
) -> dict[str, Any]:
    """A change of the algorithm as a change of the settings.

    `wanted` may name family_weights, factor_weights (those that are not named keep theirs) and
    impact_notional. Raises ConfigurationRefusedError for what cannot be: a factor that there is
    not, a family that counts while none of its factors does.
    """
    weights = wanted.get("factor_weights", {})
    named = {**present.scoring.factor_weights, **(weights if isinstance(weights, Mapping) else {})}
    changes: dict[str, Any] = {"scoring": {"factor_weights": named}}
    if _NOTIONAL in wanted:
        changes["scoring"][_NOTIONAL] = wanted[_NOTIONAL]
    if "family_weights" in wanted:
        changes["family_weights"] = wanted["family_weights"]
    require_sound(validate(changes, present), table)
    return changes


def require_sound(settings: Configuration, table: tuple[Factor, ...] = FACTORS) -> None:
    """Only factors of the table have weights, and a family that counts has a factor that does.

    Raises ConfigurationRefusedError.
    """
    known = {factor.name for factor in table}
    wrong = [
        Complaint(f"{_WEIGHTS}.{echoed_key(name)}", "unknown_key", "there is no such factor")
        for name in settings.scoring.factor_weights
        if name not in known
    ]
    if wrong:
        raise ConfigurationRefusedError(Code.VALIDATION_FAILED, tuple(wrong))
    spec = algorithm(settings, table)
    empty = [
        family
        for family, weight in spec.weights.items()
        if weight > 0.0 and not any(f.weight > 0.0 for f in spec.factors if f.family is family)
    ]
    if empty:
        raise ConfigurationRefusedError(
            Code.CONSTRAINTS_INFEASIBLE,
            tuple(
                Complaint(_WEIGHTS, "infeasible", f"no factor of {family} has a weight")
                for family in empty
            ),
        )
