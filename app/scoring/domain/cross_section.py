"""Across symbols: rank to normal; (N,) in, (N,) out, missing stays missing."""

import numpy as np
from scipy.special import ndtri

from app.market.domain.models import Floats

_TINY = 1e-280  # below it the scale would overflow


def rounded_significant(values: Floats, digits: int = 12) -> Floats:
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
