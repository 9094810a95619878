"""Combines raw factor values (K, N) into one composite z per symbol (N,).

Factors are ranked, summed by weight into families, ranked again, summed into the composite and
ranked again. The divisor of a weighted sum is the root of the sum of the squared available
weights. Division by the plain sum would widen the spread of symbols that lack a family: they would
fill both ends of the board.

An algorithm may neutralise the composite: its z is regressed on the z of exposures, and the
residual is ranked again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np

from app.configuration.domain.sections import Family, Neutralisation
from app.foundation.decimal_math import ONE, all_to_millionths, to_millionths
from app.market.domain.models import Floats, Ints
from app.market.domain.panel import Bools
from app.scoring.domain.factors import FACTORS, Factor, rank_to_normal, rounded_significant
from app.scoring.domain.historical_moments import (
    MIN_UNIVERSE,
    DayMoments,
    Moments,
    compute_day_moments,
    standardize_by_moments,
)
from app.scoring.domain.neutralisation import ExposureFit, fit_exposures


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

    `factor_z` and `factor_share` (K, N) are the oriented z and its weight in the sum of its
    family; `family_*` (G, N) are the same for families in the composite; `family_of` (K,) is the
    row of each factor's family. A factor without value is NaN, one of an unavailable family is 0,
    and all are NaN where the composite is missing.
    """
    stretch = _rms_ratio(family_linear, family_z)[:, None]
    rest = family_z - stretch * family_linear
    part = _group_shares(factor_share, family_of, len(family_z))
    inside = factor_share * stretch[family_of] * factor_z + part * rest[family_of]
    across = _rms_ratio(linear[None, :], final[None, :])
    counted = np.where(family_share > 0.0, family_share, 0.0)
    of_all = _group_shares(counted, np.zeros(len(counted), np.int64), 1)
    moved = part * of_all[family_of] * (final - across * linear)
    brought = counted[family_of] * across * inside + moved
    total = confidence * np.where(counted[family_of] > 0.0, brought, 0.0)
    return np.where(np.isfinite(factor_z) & np.isfinite(final), total, np.nan)


def _group_shares(weight: Floats, group_of: Ints, groups: int) -> Floats:
    """(R, N) weights scaled so that each group adds up to 1."""
    total = np.zeros((groups, weight.shape[1]))
    np.add.at(total, group_of, weight)
    return weight / np.where(total > 0.0, total, 1.0)[group_of]


def _rms_ratio(linear: Floats, mapped: Floats) -> Floats:
    """Ratio of root mean squares per row over symbols with both values; 0 if nothing varies."""
    both = np.isfinite(linear) & np.isfinite(mapped)
    before = np.where(both, linear, 0.0) ** 2
    after = np.where(both, mapped, 0.0) ** 2
    spread = before.sum(axis=1)
    ratio = after.sum(axis=1) / np.where(spread > 0.0, spread, np.inf)
    return np.asarray(np.sqrt(ratio), np.float64)


FORMULA_VERSION: Final = 3  # increases when the formula changes; part of each algorithm version
MIN_COVERAGE: Final = 0.5  # of a family's or the composite's weight
RANKED_DIGITS: Final = 8  # significant digits
COMPOSITE: Final = "composite"
EXPOSURES: Final[Mapping[Neutralisation, tuple[str, ...]]] = MappingProxyType({
    Neutralisation.NONE: (),
    Neutralisation.VOLATILITY: ("volatility",),
    Neutralisation.VOLATILITY_AND_BTC_BETA: ("volatility", "btc_beta"),
})  # fmt: skip
RANKING: Final = "ranking"  # of the residual, beside the effects of the exposures


def _no_moments() -> Mapping[str, Moments]:
    return MappingProxyType({})


Standardize = Callable[[Floats, Moments | None], Floats]  # (N,) values to normal scores


@dataclass(frozen=True, slots=True)
class AlgorithmSpec:
    """Definition of a scoring algorithm; `moments` by factor name, family name or `composite`.

    `parameters` are the parameters of the factors, recorded with the algorithm version. Moments
    of a family and of the composite belong to the weighted sums before ranking; only values of
    fewer than ten symbols need them.
    """

    name: str
    weights: Mapping[Family, float]
    factors: tuple[Factor, ...] = FACTORS
    moments: Mapping[str, Moments] = field(default_factory=_no_moments)
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    neutralise: Neutralisation = Neutralisation.NONE

    def __post_init__(self) -> None:
        if set(self.weights) != set(Family) or abs(sum(self.weights.values()) - 1.0) > 1e-9:
            raise ValueError("the four family weights must add up to 1")
        if min(self.weights.values()) < 0.0:
            raise ValueError("a family weight must not be negative")
        missing = set(self.exposures) - {factor.name for factor in self.factors}
        if missing:
            raise ValueError(f"the exposure {min(missing)} is no factor of this algorithm")

    @property
    def exposures(self) -> tuple[str, ...]:
        """Names of the factors whose z the composite is made independent of."""
        return EXPOSURES[self.neutralise]


@dataclass(frozen=True, slots=True, eq=False)
class CompositeResult:
    """Scores of every symbol; NaN is unavailable. K factors, G families, N symbols."""

    factor_z: Floats  # (K, N), oriented
    factor_weight: Floats  # (K,), share of the composite when no value is missing
    family_z: Floats  # (G, N), re-standardised
    completeness: Floats  # (N,), share of the applicable weight that has a value
    z: Floats  # (N,), composite, re-standardised, before shrinking
    plain_z: Floats  # (N,), the same before neutralisation
    exposures: tuple[str, ...]
    _exposure_effects: Floats  # (E, N)
    _factor_share: Floats
    _family_of: Ints
    _family_linear: Floats
    _family_share: Floats
    _linear: Floats

    def contributions(self, confidence: Floats) -> Floats:
        """(K, N) shares that add up to `confidence * z`, together with `neutralisation`."""
        return contributions(
            self.factor_z,
            self._factor_share,
            self._family_of,
            self._family_linear,
            self.family_z,
            self._family_share,
            self._linear,
            np.where(np.isfinite(self.z), self.plain_z, np.nan),
            confidence,
        )

    def neutralisation(self, confidence: Floats) -> dict[str, Floats]:
        """Shares (N,) of `confidence * z` by exposure, and of ranking the residual again.

        Empty for an algorithm without neutralisation; NaN where the composite is missing.
        """
        if not self.exposures:
            return {}
        effects = confidence * self._exposure_effects
        ranked = confidence * (self.z - self.plain_z) - effects.sum(axis=0)
        return {**dict(zip(self.exposures, effects, strict=True)), RANKING: ranked}

    def ranked_values(self, raw: Floats, spec: AlgorithmSpec) -> dict[str, Floats]:
        """Ranked values (N,) by name of factor, family or composite; `raw` (K, N) as scored."""
        factors = {factor.name: row for factor, row in zip(spec.factors, raw, strict=True)}
        families = dict(
            zip(map(str, Family), _rounded_for_ranking(self._family_linear), strict=True)
        )
        return {**factors, **families, COMPOSITE: _rounded_for_ranking(self._linear)}

    def unranked_names(self, raw: Floats, spec: AlgorithmSpec) -> frozenset[str]:
        """Names of factors, families or composite with values, but too few to rank."""
        counts = {
            name: np.isfinite(own).sum() for name, own in self.ranked_values(raw, spec).items()
        }
        return frozenset(name for name, count in counts.items() if 0 < count < MIN_UNIVERSE)

    def day_moments(self, raw: Floats, spec: AlgorithmSpec) -> dict[str, DayMoments]:
        """Moments of this board's values by name, for later boards with too few values to rank."""
        moments = {
            name: compute_day_moments(own) for name, own in self.ranked_values(raw, spec).items()
        }
        return {name: known for name, known in moments.items() if known is not None}


def composite_scores(
    raw: Floats,
    spec: AlgorithmSpec,
    standard: Standardize | None = None,
    applies: Bools | None = None,
) -> CompositeResult:
    """Combines raw factor values (K, N), in the order of `spec.factors`, into one composite z.

    A family with less than half of its factor weight is unavailable, and so is a composite with
    less than half of all weight; otherwise the available weights are rescaled. A factor that
    cannot apply to a symbol, False in `applies` (K, N), does not count as missing weight.
    `standard` replaces the ranking, for several universes side by side along N; it raises
    ValueError for an algorithm with neutralisation, which is a regression over one universe.
    """
    if standard is not None and spec.exposures:
        raise ValueError("the composite of several universes cannot be neutralised")
    applies = np.ones(raw.shape, np.bool_) if applies is None else applies
    standard = standard or _standardize
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
    least = to_millionths(MIN_COVERAGE)
    rows = [np.flatnonzero(family_of == index) for index in range(len(families))]
    share = np.zeros(raw.shape)
    coverage = np.zeros((len(families), raw.shape[1]))
    linear = np.zeros(coverage.shape)
    for index, own in enumerate(rows):
        share[own], coverage[index] = _unit_norm_weights(factor_z[own], weight[own], applies[own])
        linear[index] = _weighted_sum(factor_z[own], share[own])
    linear = np.where(all_to_millionths(coverage) >= least, linear, np.nan)
    family_z = np.array(
        [
            standard(_rounded_for_ranking(values), spec.moments.get(family))
            for family, values in zip(families, linear, strict=True)
        ]
    )
    totals = np.array([weight[own].sum() for own in rows])
    possible = np.array([np.where(applies[own], weight[own, None], 0.0).sum(0) for own in rows])
    may_count = (possible > 0.0) | (totals == 0.0)[:, None]
    most = np.where(may_count, family_weight[:, None], 0.0).sum(axis=0)
    covered = (family_weight[:, None] * coverage).sum(axis=0)
    completeness = covered / np.where(most > 0.0, most, 1.0)
    family_share, _ = _unit_norm_weights(family_z, family_weight, may_count)
    is_covered = all_to_millionths(completeness) >= least
    composite = np.where(is_covered, _weighted_sum(family_z, family_share), np.nan)
    plain_z = standard(_rounded_for_ranking(composite), spec.moments.get(COMPOSITE))
    fit = _exposure_fit(plain_z, factor_z, spec)
    return CompositeResult(
        factor_z=factor_z,
        factor_weight=weight
        / np.where(totals > 0.0, totals, 1.0)[family_of]
        * family_weight[family_of],
        family_z=family_z,
        completeness=np.minimum(completeness, 1.0),  # rounding may leave a sum of weights above 1
        z=standard(_rounded_for_ranking(fit.residual), None) if spec.exposures else plain_z,
        plain_z=plain_z,
        exposures=spec.exposures,
        _exposure_effects=fit.effects,
        _factor_share=share,
        _family_of=family_of,
        _family_linear=linear,
        _family_share=family_share,
        _linear=composite,
    )


def _exposure_fit(plain_z: Floats, factor_z: Floats, spec: AlgorithmSpec) -> ExposureFit:
    names = [factor.name for factor in spec.factors]
    rows = [names.index(name) for name in spec.exposures]
    return fit_exposures(plain_z, factor_z[rows])


def _standardize(values: Floats, moments: Moments | None) -> Floats:
    """Normal scores by rank; fewer than ten values use moments, and are NaN without them.

    Ranks compare eight significant digits, the precision that differences of prices have.
    """
    if np.isfinite(values).sum() >= MIN_UNIVERSE:
        return rank_to_normal(rounded_significant(values, RANKED_DIGITS))
    return standardize_by_moments(values, moments)


def _rounded_for_ranking(sums: Floats) -> Floats:
    """Sums rounded to millionths before ranking.

    Normal scores repeat from factor to factor, so weighted sums are often mathematically equal.
    Without rounding, the order of additions would decide their ranks.
    """
    return all_to_millionths(sums) / ONE


def _unit_norm_weights(values: Floats, weight: Floats, applies: Bools) -> tuple[Floats, Floats]:
    """(R, N) weights of the available rows, and (N,) their share of the applicable weight.

    The squared weights add up to 1, so that a sum of independent rows keeps unit variance.
    """
    available = np.where(np.isfinite(values), weight[:, None], 0.0)
    possible = np.where(applies, weight[:, None], 0.0).sum(axis=0)
    root = np.sqrt((available**2).sum(axis=0))
    return (
        available / np.where(root > 0.0, root, 1.0),
        available.sum(axis=0) / np.where(possible > 0.0, possible, 1.0),
    )


def _weighted_sum(values: Floats, share: Floats) -> Floats:
    """(N,) weighted sum of the rows; NaN where no weight is available."""
    total = np.where(share > 0.0, share * values, 0.0).sum(axis=0)
    return np.where((share > 0.0).any(axis=0), total, np.nan)
