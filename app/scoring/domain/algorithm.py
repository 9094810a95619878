"""Builds the scoring algorithm from the settings, and settings from a change of the algorithm."""

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
from app.configuration.domain.sections import Family, Neutralisation
from app.foundation.errors import Code
from app.scoring.domain import market_factors as factors_market
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.factors import FACTORS, Factor

CROSS_SECTIONAL: Final = "cross_sectional"
_NOTIONAL: Final = "impact_notional"
IMPACT: Final = "impact"
_NEUTRALISE: Final = "neutralise"
_WEIGHTS: Final = "scoring.factor_weights"


def build_algorithm(settings: Configuration, table: tuple[Factor, ...] = FACTORS) -> AlgorithmSpec:
    """Returns the algorithm that `settings` describe, with the factors of `table`."""
    rules = settings.scoring
    weighted = tuple(
        replace(factor, weight=rules.factor_weights.get(factor.name, factor.weight))
        for factor in table
    )
    return with_parameters(
        CROSS_SECTIONAL,
        settings.family_weights,
        weighted,
        {_NOTIONAL: rules.impact_notional},
        rules.neutralise,
    )


def with_parameters(
    name: str,
    weights: Mapping[Family, float],
    factors: Iterable[Factor],
    parameters: Mapping[str, float],
    neutralise: Neutralisation = Neutralisation.NONE,
) -> AlgorithmSpec:
    """Returns an algorithm whose factors use `parameters`."""
    impact = partial(factors_market.impact, notional=parameters[_NOTIONAL])
    support = partial(factors_market.impact_support, notional=parameters[_NOTIONAL])
    configured = tuple(
        replace(factor, measure=impact, support=support) if factor.name == IMPACT else factor
        for factor in factors
    )
    return AlgorithmSpec(name, weights, configured, parameters=parameters, neutralise=neutralise)


def settings_changes(
    wanted: Mapping[str, object],
    present: Configuration,
    table: tuple[Factor, ...] = FACTORS,
    family: Family | None = None,
) -> dict[str, Any]:
    """Translates a change of the algorithm into a change of the settings.

    `wanted` may contain family_weights, factor_weights (omitted factors keep their weights),
    impact_notional and neutralise; with `family` only parameters of that family. Raises
    ConfigurationRefusedError for an unknown factor, for a parameter of another family, or for a
    weighted family whose factors all have weight 0.
    """
    if family is not None:
        _require_family(wanted, table, family)
    weights = wanted.get("factor_weights", {})
    named = {**present.scoring.factor_weights, **(weights if isinstance(weights, Mapping) else {})}
    changes: dict[str, Any] = {"scoring": {"factor_weights": named}}
    if _NOTIONAL in wanted:
        changes["scoring"][_NOTIONAL] = wanted[_NOTIONAL]
    if _NEUTRALISE in wanted:
        changes["scoring"][_NEUTRALISE] = wanted[_NEUTRALISE]
    if "family_weights" in wanted:
        changes["family_weights"] = wanted["family_weights"]
    validate_factor_weights(validate(changes, present), table)
    return changes


def _require_family(
    wanted: Mapping[str, object], table: tuple[Factor, ...], family: Family
) -> None:
    """Raises ConfigurationRefusedError that names every parameter of another family."""
    own = {factor.name for factor in table if factor.family is family}
    weights = wanted.get("factor_weights", {})
    foreign = [
        f"{_WEIGHTS}.{echoed_key(name)}"
        for name in (weights if isinstance(weights, Mapping) else {})
        if name not in own
    ]
    if "family_weights" in wanted:
        foreign.append("family_weights")
    if _NEUTRALISE in wanted:
        foreign.append(f"scoring.{_NEUTRALISE}")
    if _NOTIONAL in wanted and IMPACT not in own:
        foreign.append(f"scoring.{_NOTIONAL}")
    if foreign:
        raise ConfigurationRefusedError(
            Code.VALIDATION_FAILED,
            tuple(
                Complaint(loc, "unknown_key", f"{loc} is no parameter of {family.value}")
                for loc in foreign
            ),
        )


def validate_factor_weights(settings: Configuration, table: tuple[Factor, ...] = FACTORS) -> None:
    """Raises ConfigurationRefusedError unless the factor weights fit `table`.

    Every weighted factor must be in the table, and every weighted family needs a weighted factor.
    """
    known = {factor.name for factor in table}
    wrong = [
        Complaint(f"{_WEIGHTS}.{echoed_key(name)}", "unknown_key", "unknown factor")
        for name in settings.scoring.factor_weights
        if name not in known
    ]
    if wrong:
        raise ConfigurationRefusedError(Code.VALIDATION_FAILED, tuple(wrong))
    spec = build_algorithm(settings, table)
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
