"""Across symbols: rank to normal and robust z; (N,) in, (N,) out, missing stays missing."""

import numpy as np
from scipy.special import ndtri

from app.domain.market import Floats

_MAD_TO_SD = 1.4826  # median absolute deviation of a normal variable -> its sd
_TINY = 1e-280  # below it the scale would overflow
_MEAN_TO_SD = 1.2533  # mean absolute deviation of a normal variable -> its sd


def significant(values: Floats, digits: int = 12) -> Floats:
    """Rounded to significant digits, so that what is equal in truth is equal in fact.

    Two sums of the same terms in another order differ in their last bits; a rank must not.
    """
    size = np.abs(values)
    known = np.isfinite(values) & (size > _TINY)
    exponent = np.floor(np.log10(np.where(known, size, 1.0)))
    scale = 10.0 ** (digits - 1 - exponent)
    return np.where(known, np.rint(np.where(known, values, 0.0) * scale) / scale, values)


def average_ranks(values: Floats) -> Floats:
    """Rank 1..n among the finite entries, ties share the mean of their ranks; others NaN."""
    known = np.isfinite(values)
    _, place, count = np.unique(values[known], return_inverse=True, return_counts=True)
    ranks = np.full(len(values), np.nan)
    ranks[known] = (np.cumsum(count) - (count - 1) / 2.0)[place]
    return ranks


def rank_to_normal(values: Floats) -> Floats:
    """Phi^-1((rank - 0.5) / n) among the finite entries; equal values get equal z, others NaN."""
    ranks = average_ranks(values)
    return np.asarray(ndtri((ranks - 0.5) / max(int(np.isfinite(values).sum()), 1)), np.float64)


def robust_z(values: Floats, limit: float = 3.0) -> Floats:
    """(x - median) / (1.4826 MAD) within +-limit; all equal gives 0, non-finite NaN.

    When more than half are equal the MAD is 0 and the mean absolute deviation stands in.
    """
    known = np.isfinite(values)
    z = np.full(len(values), np.nan)
    if not known.any():
        return z
    away = values[known] - np.median(values[known])
    scale = _MAD_TO_SD * np.median(np.abs(away)) or _MEAN_TO_SD * np.mean(np.abs(away))
    z[known] = np.clip(away / scale, -limit, limit) if scale else 0.0
    return z
