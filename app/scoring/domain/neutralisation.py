"""Neutralisation: the part of a score that cross-sectional exposures do not explain.

A score that is mostly a low-volatility rank says little beside volatility. The regression of the
composite z on the z of the exposures takes that part out; its residual is ranked again.
"""

from dataclasses import dataclass
from math import fsum
from typing import Final

import numpy as np

from app.market.domain.models import Floats
from app.scoring.domain.historical_moments import MIN_UNIVERSE

_COLLINEAR: Final = 1e-12  # share of an exposure's spread below which the others already span it


@dataclass(frozen=True, slots=True, eq=False)
class ExposureFit:
    """Least squares of scores on exposures; NaN for a symbol that lacks one of them."""

    effects: Floats  # (E, N), minus slope times the exposure's distance from its mean
    residual: Floats  # (N,), score minus intercept and explained part; mean 0


def fit_exposures(z: Floats, exposures: Floats) -> ExposureFit:
    """Regresses scores z (N,) on a constant and exposures (E, N) across the symbols with both.

    All results are NaN with fewer than ten such symbols, and without exposures. An exposure that
    does not vary, or that earlier ones span, takes out nothing more. Sums are exactly rounded, so
    that neither the order of the symbols nor the processor changes a digit. Source: ordinary least
    squares by modified Gram-Schmidt.
    """
    known = np.isfinite(z) & np.isfinite(exposures).all(axis=0)
    effects, residual = np.full(exposures.shape, np.nan), np.full(z.shape, np.nan)
    if not len(exposures) or known.sum() < MIN_UNIVERSE:
        return ExposureFit(effects, residual)
    centred = [_centred(row[known]) for row in exposures]
    rest = _centred(z[known])
    basis: list[Floats] = []
    columns: list[list[float]] = []  # of the triangular matrix, one per exposure
    loads: list[float] = []
    for own in centred:
        vector, column = own, []
        for other in basis:
            share = _ratio(vector, other)
            vector = vector - share * other
            column.append(share)
        if _product(vector, vector) <= _COLLINEAR * _product(own, own):
            vector = np.zeros_like(own)
        load = _ratio(rest, vector)
        rest = rest - load * vector
        basis.append(vector)
        columns.append(column)
        loads.append(load)
    slopes = _back_substituted(columns, loads)
    effects[:, known] = [-slope * own for slope, own in zip(slopes, centred, strict=True)]
    residual[known] = rest
    return ExposureFit(effects, residual)


def _back_substituted(columns: list[list[float]], loads: list[float]) -> list[float]:
    """Slopes of the exposures themselves from the loads on their orthogonal parts."""
    slopes = list(loads)
    for place in range(len(loads) - 1, -1, -1):
        for earlier, share in enumerate(columns[place]):
            slopes[earlier] -= share * slopes[place]
    return slopes


def _centred(values: Floats) -> Floats:
    return values - fsum(values.tolist()) / len(values)


def _product(one: Floats, other: Floats) -> float:
    return fsum((one * other).tolist())


def _ratio(values: Floats, basis: Floats) -> float:
    """Coefficient of `values` on one orthogonal vector; 0 for a vector of zeros."""
    spread = _product(basis, basis)
    return _product(values, basis) / spread if spread > 0.0 else 0.0
