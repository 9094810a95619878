"""Breakdown of a card: the steps from factor values to the score, in numbers that add up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Final

from scipy.special import ndtri

from app.configuration.domain.sections import Family
from app.scoring.domain.board import Card, FactorReading

FORMULA: Final = (
    "contribution = confidence * weight_of_family * weight_in_family * z + ranking;"
    " sum of contributions = confidence * composite_z = z; composite_score = Phi(z);"
    " the neutralisation of the composite, if any, is among the contributions"
)
WHY_PERCENTILES_DIFFER: Final = (
    "A family score is the percentile of the symbol among all symbols by that family alone. The"
    " weighted sum of the families is ranked again and drawn towards 0.5 by the confidence, so the"
    " composite is a percentile of its own and no mean of the family scores."
)


DIGITS: Final = 12  # significant digits of a float in a response


@dataclass(frozen=True, slots=True)
class FactorBreakdown:
    """Steps of one factor; `direct` + `ranking` = its contribution.

    `weight_in_family` is 0 for a factor without z, and `weight_of_family` for a family without
    score. Other weights are divided so that the squares of those that count add up to 1. `direct`
    and `ranking` are None where the factor has no contribution.
    """

    weight_in_family: float
    weight_of_family: float
    direct: float | None  # confidence * weight_of_family * weight_in_family * z
    ranking: float | None  # effect of ranking the sums of factors and of families


@dataclass(frozen=True, slots=True)
class FamilyBreakdown:
    """Steps of one family; None where the family, or the composite, is unavailable."""

    family: Family
    nominal_weight: float  # of the algorithm, where nothing is missing
    weight: float  # as in `FactorBreakdown.weight_of_family`
    weighted_sum: float | None  # of z * weight_in_family over its factors
    z: float | None  # of the weighted sum, ranked among all symbols
    score: float | None  # Phi(z)
    contribution: float | None  # sum over its factors


@dataclass(frozen=True, slots=True)
class ScoreBreakdown:
    """Factors in the order of the card, families in theirs, and the steps of the composite."""

    factors: tuple[FactorBreakdown, ...]
    families: tuple[FamilyBreakdown, ...]
    weighted_sum: float | None  # of the family z * weight over the families
    composite_z: float | None  # of the weighted sum, ranked among all symbols, before confidence
    neutralisation: Mapping[str, float]  # contributions by exposure, and of ranking the residual
    sum_of_contributions: float | None


def explain_card(card: Card) -> ScoreBreakdown:
    """Returns the steps from the factors of a card to its score.

    Sums and products are of numbers rounded to the digits of a response: a reader who repeats them
    gets the shown results.
    """
    families = [_Family(family, card) for family in Family]
    root = sqrt(fsum(one.nominal**2 for one in families if one.z is not None)) or 1.0
    weights = {
        one.family: _rounded(one.nominal / root) if one.z is not None else 0.0 for one in families
    }
    by_family = {one.family: one for one in families}
    level = None if card.confidence is None else _rounded(card.confidence.level)
    factors = [
        _factor(one, by_family[one.family].weight_of(one), weights[one.family], level)
        for one in card.factors
    ]
    rows = tuple(one.breakdown(weights[one.family]) for one in families)
    taken_out = {name: _rounded(part) for name, part in card.neutralisation.items()}
    sums = [one.weight * one.z for one in rows if one.z is not None]
    return ScoreBreakdown(
        factors=tuple(factors),
        families=rows,
        weighted_sum=fsum(sums) if sums and card.z is not None else None,
        composite_z=None if card.z is None or not level else card.z / level,
        neutralisation=taken_out,
        sum_of_contributions=None
        if card.z is None
        else _total(card.factors) + fsum(taken_out.values()),
    )


class _Family:
    """Readings of one family, with the root that scales their weights."""

    def __init__(self, family: Family, card: Card) -> None:
        self.family = family
        self.readings = [one for one in card.factors if one.family is family]
        self.score = card.families[family]
        self.z = None if self.score is None else _rounded(float(ndtri(self.score)))
        self.nominal = fsum(one.weight for one in self.readings)
        self.is_scored = card.z is not None
        self._root = sqrt(fsum(one.weight**2 for one in self.readings if one.z is not None)) or 1.0

    def weight_of(self, reading: FactorReading) -> float:
        return 0.0 if reading.z is None else _rounded(reading.weight / self._root)

    def breakdown(self, weight: float) -> FamilyBreakdown:
        parts = [
            self.weight_of(one) * _rounded(one.z) for one in self.readings if one.z is not None
        ]
        return FamilyBreakdown(
            family=self.family,
            nominal_weight=self.nominal,
            weight=weight,
            weighted_sum=None if self.score is None else fsum(parts),
            z=self.z,
            score=self.score,
            contribution=_total(self.readings) if self.is_scored else None,
        )


def _factor(
    reading: FactorReading, inside: float, across: float, level: float | None
) -> FactorBreakdown:
    if reading.contribution is None or reading.z is None or level is None:
        return FactorBreakdown(inside, across, None, None)
    direct = _rounded(level * across * inside * _rounded(reading.z))
    return FactorBreakdown(inside, across, direct, _rounded(reading.contribution) - direct)


def _total(readings: Sequence[FactorReading]) -> float:
    return fsum(_rounded(one.contribution) for one in readings if one.contribution is not None)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
