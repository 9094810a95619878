"""Mean correlation of each symbol with all others, without the matrix of all pairs."""

from typing import Final

import numpy as np

from app.domain.kernels.compilation import Kernel
from app.domain.market import Floats

_BLOCK: Final = 64  # columns whose rows stay in the cache between the two looks at them


def mean_correlation(returns: Floats, out: Floats) -> None:  # noqa: C901, PLR0912  # as take
    """(T, N) returns to (N,): with unit columns u it is (u_i . sum u_j - 1) / (M - 1).

    The order of rows does not matter. A symbol with a hole, or that never moved, is unknown (NaN)
    and not among the M; so is everybody where fewer than two are left.
    """
    rows, symbols = returns.shape
    mean, scale = np.zeros(symbols), np.zeros(symbols)
    many = 0
    for first in range(0, symbols, _BLOCK):
        n = min(_BLOCK, symbols - first)
        m, s = mean[first : first + n], scale[first : first + n]
        for row in range(rows):
            r = returns[row, first : first + n]
            for j in range(n):
                m[j] += r[j]
        for j in range(n):
            m[j] /= rows
        for row in range(rows):
            r = returns[row, first : first + n]
            for j in range(n):
                s[j] += (r[j] - m[j]) * (r[j] - m[j])
        for j in range(n):
            # What is left of equal returns after their mean is rounding, not movement.
            moved = s[j] > 1e-24 * rows * m[j] * m[j]
            many += 1 if moved else 0
            m[j] = m[j] if moved else 0.0
            s[j] = 1.0 / np.sqrt(s[j]) if moved else 0.0
            out[first + j] = 0.0
    unit, sums = np.empty(symbols), np.empty(_BLOCK)
    for row in range(rows):
        sums[:] = 0.0  # as many as fit: each addition to a single one would wait for the last one
        for first in range(0, symbols, _BLOCK):
            n = min(_BLOCK, symbols - first)
            r, u = returns[row, first : first + n], unit[first : first + n]
            m, s = mean[first : first + n], scale[first : first + n]
            for j in range(n):
                u[j] = (r[j] - m[j]) * s[j] if s[j] > 0.0 else 0.0
                sums[j] += u[j]
        total = 0.0
        for j in range(_BLOCK):
            total += sums[j]
        for j in range(symbols):
            out[j] += unit[j] * total
    for j in range(symbols):
        known = (out[j] - 1.0) / (many - 1.0)
        out[j] = known if scale[j] > 0.0 and many > 1 else np.nan


MEAN_CORRELATION: Final = Kernel(mean_correlation)
