"""Versions of an algorithm: equal parameters share one immutable version."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from app.configuration.domain.sections import Family, Neutralisation
from app.foundation.sql.database import UnitOfWork
from app.scoring.domain.algorithm import with_parameters
from app.scoring.domain.composite import FORMULA_VERSION, AlgorithmSpec
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.storage.runs import ScoringRepository, StoredAlgorithm

_AUTHOR: Final = "service"


@dataclass(frozen=True, slots=True)
class AlgorithmVersion:
    """Active parameters; `created_at` is None until the first run has stored the version."""

    name: str
    version: int
    body: dict[str, Any]
    created_at: datetime | None


async def current_version(unit: UnitOfWork, spec: AlgorithmSpec) -> AlgorithmVersion:
    """Returns the newest stored version if it equals `spec`, else its unstored successor."""
    body = spec_to_json(spec)
    algorithms = await unit.get(ScoringRepository).algorithms()
    newest = {algorithm.name: algorithm for algorithm in algorithms}.get(spec.name)
    if newest is not None and newest.body == body:
        return AlgorithmVersion(spec.name, newest.version, body, newest.created_at)
    return AlgorithmVersion(spec.name, newest.version + 1 if newest else 1, body, None)


async def find_version(unit: UnitOfWork, spec: AlgorithmSpec) -> int | None:
    """Returns the newest stored version that equals `spec`; None without one."""
    body = spec_to_json(spec)
    stored = await unit.get(ScoringRepository).versions(spec.name)
    return max((one.version for one in stored if one.body == body), default=None)


async def get_or_create_version(
    unit: UnitOfWork, spec: AlgorithmSpec, at: datetime
) -> AlgorithmVersion:
    """Returns the current version; stores it if it is new."""
    version = await current_version(unit, spec)
    if version.created_at is None:
        row = StoredAlgorithm(version.name, version.version, version.body, at, _AUTHOR)
        await unit.get(ScoringRepository).insert_algorithm(row)
    return version


def spec_to_json(spec: AlgorithmSpec) -> dict[str, Any]:
    """Returns the definition of an algorithm as plain JSON, the content of a version.

    `neutralise` is left out where nothing is neutralised, so that versions from before it last.
    """
    is_plain = spec.neutralise is Neutralisation.NONE
    neutralised = {} if is_plain else {"neutralise": spec.neutralise.value}
    return {
        "formula": FORMULA_VERSION,
        "family_weights": {family.value: weight for family, weight in spec.weights.items()},
        "parameters": dict(spec.parameters),
        **neutralised,
        "factors": [
            {
                "name": factor.name,
                "family": factor.family.value,
                "orientation": factor.orientation,
                "weight": factor.weight,
                "unit": factor.unit,
                "sources": [source.value for source in factor.sources],
                "meaning": factor.meaning,
            }
            for factor in spec.factors
        ],
    }


def spec_from_json(
    name: str, body: Mapping[str, Any], table: tuple[Factor, ...] = FACTORS
) -> AlgorithmSpec | None:
    """Returns the algorithm of a stored version.

    None if one of its factors no longer exists, or if its formula version is another one.
    """
    known = {factor.name: factor for factor in table}
    if body.get("formula") != FORMULA_VERSION or "parameters" not in body:
        return None
    if not {one["name"] for one in body["factors"]} <= known.keys():
        return None
    factors = tuple(
        replace(known[one["name"]], weight=one["weight"], orientation=one["orientation"])
        for one in body["factors"]
    )
    weights = {Family(family): weight for family, weight in body["family_weights"].items()}
    neutralise = Neutralisation(body.get("neutralise", Neutralisation.NONE))
    return with_parameters(name, weights, factors, body["parameters"], neutralise)
