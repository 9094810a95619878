"""Mean correlation of each symbol with all others, without the matrix of all pairs."""

from typing import Final

import numpy as np

from app.domain.kernels.compilation import Kernel
from app.domain.market import Floats

_BLOCK: Final = 64  # columns whose rows stay in the cache between the two looks at them


def mean_correlation(returns: Floats, out: Floats) -> None:  # noqa: C901  # see indicators.take
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
    for row in range(rows):
        r = returns[row]
        a, b, c, d = 0.0, 0.0, 0.0, 0.0  # four sums, or each addition would wait for the last one
        whole = symbols - symbols % 4
        for j in range(0, whole, 4):
            a += (r[j] - mean[j]) * scale[j] if scale[j] > 0.0 else 0.0
            b += (r[j + 1] - mean[j + 1]) * scale[j + 1] if scale[j + 1] > 0.0 else 0.0
            c += (r[j + 2] - mean[j + 2]) * scale[j + 2] if scale[j + 2] > 0.0 else 0.0
            d += (r[j + 3] - mean[j + 3]) * scale[j + 3] if scale[j + 3] > 0.0 else 0.0
        for j in range(whole, symbols):
            a += (r[j] - mean[j]) * scale[j] if scale[j] > 0.0 else 0.0
        total = a + b + c + d
        for j in range(symbols):
            out[j] += (r[j] - mean[j]) * total
    for j in range(symbols):
        known = (out[j] * scale[j] - 1.0) / (many - 1.0)
        out[j] = known if scale[j] > 0.0 and many > 1 else np.nan


MEAN_CORRELATION: Final = Kernel(mean_correlation)
