"""Versions of an algorithm: equal parameters have one version, and versions never change."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from app.configuration.domain.sections import Family
from app.foundation.sql.database import UnitOfWork
from app.scoring.domain.algorithm import made
from app.scoring.domain.composite import FORMULA, AlgorithmSpec
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.storage.runs import Algorithm, ScoringRepository

_AUTHOR: Final = "service"


@dataclass(frozen=True, slots=True)
class AlgorithmFacts:
    """Parameters in force; `created_at` is None until a first run has stored the version."""

    name: str
    version: int
    body: dict[str, Any]
    created_at: datetime | None


async def in_force(unit: UnitOfWork, spec: AlgorithmSpec) -> AlgorithmFacts:
    """The newest stored version if its parameters are these, else the version after it."""
    body = body_of(spec)
    stored = {one.name: one for one in await unit.get(ScoringRepository).algorithms()}
    newest = stored.get(spec.name)
    if newest is not None and newest.body == body:
        return AlgorithmFacts(spec.name, newest.version, body, newest.created_at)
    return AlgorithmFacts(spec.name, newest.version + 1 if newest else 1, body, None)


async def kept(unit: UnitOfWork, spec: AlgorithmSpec, at: datetime) -> AlgorithmFacts:
    """The same, stored."""
    facts = await in_force(unit, spec)
    if facts.created_at is None:
        version = Algorithm(facts.name, facts.version, facts.body, at, _AUTHOR)
        await unit.get(ScoringRepository).keep_algorithm(version)
    return facts


def body_of(spec: AlgorithmSpec) -> dict[str, Any]:
    """Parameters of an algorithm as plain JSON: what a version stands for."""
    return {
        "formula": FORMULA,
        "family_weights": {family.value: weight for family, weight in spec.weights.items()},
        "parameters": dict(spec.parameters),
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


def spec_of(
    name: str, body: Mapping[str, Any], table: tuple[Factor, ...] = FACTORS
) -> AlgorithmSpec | None:
    """The algorithm that a stored version stands for.

    None where a factor of it is gone, or where factors became scores by another formula then.
    """
    known = {factor.name: factor for factor in table}
    if body.get("formula") != FORMULA or "parameters" not in body:
        return None
    if not {one["name"] for one in body["factors"]} <= known.keys():
        return None
    factors = tuple(
        replace(known[one["name"]], weight=one["weight"], orientation=one["orientation"])
        for one in body["factors"]
    )
    weights = {Family(family): weight for family, weight in body["family_weights"].items()}
    return made(name, weights, factors, body["parameters"])
