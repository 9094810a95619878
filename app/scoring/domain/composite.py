"""Raw factors to one z per symbol: rank, weigh, rank, weigh, rank; (K, N) in, arrays out.

A weighted sum is divided by the root of the sum of the squares of the weights that are available:
divided by their sum, a symbol that lacks a family would have a wider spread than the others, and
such symbols would fill both ends of the board.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np

from app.configuration.domain.sections import Family
from app.foundation.decimal_math import ONE, all_to_millionths, to_millionths
from app.market.domain.models import Floats, Ints
from app.market.domain.panel import Bools
from app.scoring.domain.factors import FACTORS, Factor, rank_to_normal, rounded_significant
from app.scoring.domain.historical_moments import (
    LEAST_UNIVERSE,
    DayMoments,
    Moments,
    by_moments,
    observed,
)


def contributions(
    factor_z: Floats,
    factor_share: Floats,
    family_of: Ints,
    family_linear: Floats,
    family_z: Floats,
    family_share: Floats,
    linear: Floats,
    final: Floats,
    confidence: Floats,
) -> Floats:
    """(K, N) contribution of each factor to `confidence * final` of each symbol (N,).

    `factor_z` and `factor_share` (K, N): oriented z and the weight with which it is in the sum of
    its family; `family_*` (G, N), the same of the families in the composite; `family_of` (K,) the
    row of each factor's family. A factor without value is NaN, one whose family is unavailable 0,
    and all are NaN where there is no composite.
    """
    stretch = _stretch(family_linear, family_z)[:, None]
    rest = family_z - stretch * family_linear
    part = _parts(factor_share, family_of, len(family_z))
    inside = factor_share * stretch[family_of] * factor_z + part * rest[family_of]
    across = _stretch(linear[None, :], final[None, :])
    counted = np.where(family_share > 0.0, family_share, 0.0)
    of_all = _parts(counted, np.zeros(len(counted), np.int64), 1)
    moved = part * of_all[family_of] * (final - across * linear)
    brought = counted[family_of] * across * inside + moved
    total = confidence * np.where(counted[family_of] > 0.0, brought, 0.0)
    return np.where(np.isfinite(factor_z) & np.isfinite(final), total, np.nan)


def _parts(weight: Floats, group_of: Ints, groups: int) -> Floats:
    """The weights (R, N) as shares of their groups, adding up to 1."""
    total = np.zeros((groups, weight.shape[1]))
    np.add.at(total, group_of, weight)
    return weight / np.where(total > 0.0, total, 1.0)[group_of]


def _stretch(linear: Floats, mapped: Floats) -> Floats:
    """Ratio of root mean squares per row over the symbols that have both; 0 if nothing varies."""
    both = np.isfinite(linear) & np.isfinite(mapped)
    before = np.where(both, linear, 0.0) ** 2
    after = np.where(both, mapped, 0.0) ** 2
    spread = before.sum(axis=1)
    ratio = after.sum(axis=1) / np.where(spread > 0.0, spread, np.inf)
    return np.asarray(np.sqrt(ratio), np.float64)


FORMULA: Final = 3  # counts the changes of how factors become scores; part of each version
LEAST_COVERAGE: Final = 0.5  # of a family's or the composite's weight
_RANKED: Final = 8  # significant digits
COMPOSITE: Final = "composite"


def _no_moments() -> Mapping[str, Moments]:
    return MappingProxyType({})


Standard = Callable[[Floats, Moments | None], Floats]  # (N,) values to normal scores


@dataclass(frozen=True, slots=True)
class AlgorithmSpec:
    """How the scoring is done; `moments` by factor name, family name or `composite`.

    `parameters` are those that factors measure with, for a board to name.

    The moments of a family and of the composite are those of their weighted sums before ranking.
    Only a universe (or a factor's coverage of it) under ten symbols needs them.
    """

    name: str
    weights: Mapping[Family, float]
    factors: tuple[Factor, ...] = FACTORS
    moments: Mapping[str, Moments] = field(default_factory=_no_moments)
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if set(self.weights) != set(Family) or abs(sum(self.weights.values()) - 1.0) > 1e-9:
            raise ValueError("four family weights that add up to 1 are needed")
        if min(self.weights.values()) < 0.0:
            raise ValueError("a family weight must not be negative")


@dataclass(frozen=True, slots=True, eq=False)
class CompositeResult:
    """Scores of every symbol; NaN is unavailable. K factors, G families, N symbols."""

    factor_z: Floats  # (K, N), oriented
    factor_weight: Floats  # (K,), share of the composite when everything is there
    family_z: Floats  # (G, N), re-standardised
    completeness: Floats  # (N,), share of all weight that had a value
    z: Floats  # (N,), composite, re-standardised, before shrinking
    _factor_share: Floats
    _family_of: Ints
    _family_linear: Floats
    _family_share: Floats
    _linear: Floats

    def contributions(self, confidence: Floats) -> Floats:
        """(K, N) exact shares of `confidence * z`."""
        return contributions(
            self.factor_z,
            self._factor_share,
            self._family_of,
            self._family_linear,
            self.family_z,
            self._family_share,
            self._linear,
            self.z,
            confidence,
        )

    def ranked(self, raw: Floats, spec: AlgorithmSpec) -> dict[str, Floats]:
        """(N,) each, what was ranked, as `AlgorithmSpec.moments` names it; `raw` as given."""
        factors = {factor.name: row for factor, row in zip(spec.factors, raw, strict=True)}
        families = dict(zip(map(str, Family), _levelled(self._family_linear), strict=True))
        return {**factors, **families, COMPOSITE: _levelled(self._linear)}

    def too_few(self, raw: Floats, spec: AlgorithmSpec) -> frozenset[str]:
        """Names of what had values, but too few to rank."""
        counts = {name: np.isfinite(own).sum() for name, own in self.ranked(raw, spec).items()}
        return frozenset(name for name, count in counts.items() if 0 < count < LEAST_UNIVERSE)

    def moments_seen(self, raw: Floats, spec: AlgorithmSpec) -> dict[str, DayMoments]:
        """What smaller universes after this one can be measured by."""
        seen = {name: observed(own) for name, own in self.ranked(raw, spec).items()}
        return {name: one for name, one in seen.items() if one is not None}


def composite_scores(
    raw: Floats,
    spec: AlgorithmSpec,
    standard: Standard | None = None,
    applies: Bools | None = None,
) -> CompositeResult:
    """Rank the raw factor values (K, N), in the order of `spec.factors`, into one composite z.

    A family without half of its factor weight is unavailable, and so is a composite without half
    of all weight; what is left is weighed among itself. A factor that cannot apply to a symbol,
    False in `applies` (K, N), is no part of the weight that it could have. `standard` ranks in
    place of one universe several that stand one after the other in N.
    """
    applies = np.ones(raw.shape, np.bool_) if applies is None else applies
    standard = standard or _standard
    factors, families = spec.factors, tuple(Family)
    family_of = np.array([families.index(factor.family) for factor in factors])
    weight = np.array([factor.weight for factor in factors])
    family_weight = np.array([spec.weights[family] for family in families])
    factor_z = np.array(
        [
            factor.orientation * standard(values, spec.moments.get(factor.name))
            for factor, values in zip(factors, raw, strict=True)
        ]
    )
    least = to_millionths(LEAST_COVERAGE)
    rows = [np.flatnonzero(family_of == index) for index in range(len(families))]
    share = np.zeros(raw.shape)
    coverage = np.zeros((len(families), raw.shape[1]))
    linear = np.zeros(coverage.shape)
    for index, own in enumerate(rows):
        share[own], coverage[index] = _shares(factor_z[own], weight[own], applies[own])
        linear[index] = _sum(factor_z[own], share[own])
    linear = np.where(all_to_millionths(coverage) >= least, linear, np.nan)
    family_z = np.array(
        [
            standard(_levelled(values), spec.moments.get(family))
            for family, values in zip(families, linear, strict=True)
        ]
    )
    totals = np.array([weight[own].sum() for own in rows])
    possible = np.array([np.where(applies[own], weight[own, None], 0.0).sum(0) for own in rows])
    may_count = (possible > 0.0) | (totals == 0.0)[:, None]
    most = np.where(may_count, family_weight[:, None], 0.0).sum(axis=0)
    covered = (family_weight[:, None] * coverage).sum(axis=0)
    completeness = covered / np.where(most > 0.0, most, 1.0)
    family_share, _ = _shares(family_z, family_weight, may_count)
    is_covered = all_to_millionths(completeness) >= least
    composite = np.where(is_covered, _sum(family_z, family_share), np.nan)
    return CompositeResult(
        factor_z=factor_z,
        factor_weight=weight
        / np.where(totals > 0.0, totals, 1.0)[family_of]
        * family_weight[family_of],
        family_z=family_z,
        completeness=np.minimum(completeness, 1.0),  # a sum of weights may end above one
        z=standard(_levelled(composite), spec.moments.get(COMPOSITE)),
        _factor_share=share,
        _family_of=family_of,
        _family_linear=linear,
        _family_share=family_share,
        _linear=composite,
    )


def _standard(values: Floats, moments: Moments | None) -> Floats:
    """Rank to normal; of fewer than ten values fixed moments decide, and without them nothing.

    Ranks look at eight significant digits: what differences of prices leave is no more exact.
    """
    if np.isfinite(values).sum() >= LEAST_UNIVERSE:
        return rank_to_normal(rounded_significant(values, _RANKED))
    return by_moments(values, moments)


def _levelled(sums: Floats) -> Floats:
    """Rounded for ranking.

    Normal scores repeat from factor to factor, so weighted sums are often equal in truth: rounding
    makes them equal in fact, or the order of additions would decide who ranks higher.
    """
    return all_to_millionths(sums) / ONE


def _shares(values: Floats, weight: Floats, applies: Bools) -> tuple[Floats, Floats]:
    """(R, N) weights of the available rows, and (N,) their share of those that can apply.

    The squares of the weights add up to 1: a sum of independent rows has the variance of one.
    """
    there = np.where(np.isfinite(values), weight[:, None], 0.0)
    possible = np.where(applies, weight[:, None], 0.0).sum(axis=0)
    root = np.sqrt((there**2).sum(axis=0))
    return (
        there / np.where(root > 0.0, root, 1.0),
        there.sum(axis=0) / np.where(possible > 0.0, possible, 1.0),
    )


def _sum(values: Floats, share: Floats) -> Floats:
    """(N,) weighted sum of the rows; NaN where no weight is available."""
    total = np.where(share > 0.0, share * values, 0.0).sum(axis=0)
    return np.where((share > 0.0).any(axis=0), total, np.nan)
