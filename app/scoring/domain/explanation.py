"""Who brought what to a composite: contributions that add up to its z exactly.

A rank map is not linear, so each of the two (family, composite) is written as z = a * linear +
rest, with `a` the ratio of the two spreads over the whole universe. The linear part belongs to the
factors by their own z; the rest, what ranking moved the symbol by, is shared by weight. One `a` for
all symbols keeps the sign of every factor (scaling per symbol would turn it over, and explode,
where a linear sum is near zero), and a sum of zero needs no special case.
"""

import numpy as np

from app.market.domain.models import Floats, Ints


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
