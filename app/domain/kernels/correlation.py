"""Mean correlation of each symbol with all others, without the matrix of all pairs."""

from typing import Final

import numpy as np

from app.domain.kernels.compilation import Kernel
from app.domain.market import Floats

_BLOCK: Final = 64  # columns whose rows stay in the cache between the two looks at them
_LINE: Final = 72  # more than 64: addresses 4096 bytes apart hold each other up
_MEAN, _SCALE, _SUM, _ONE, _TWO, _THREE = range(0, 6 * _LINE, _LINE)


def mean_correlation(returns: Floats, out: Floats) -> None:  # noqa: C901, PLR0912  # as take
    """(T, N) returns to (N,): with unit columns u it is (u_i . sum u_j - 1) / (M - 1).

    The order of rows does not matter. A symbol with a hole, or that never moved, is unknown (NaN)
    and not among the M; so is everybody where fewer than two are left.
    """
    rows, symbols = returns.shape
    many = 0
    blocks = -(-symbols // _BLOCK)
    state = np.zeros((blocks, 6 * _LINE))
    for block in range(blocks):
        own, first = state[block], block * _BLOCK
        n = min(_BLOCK, symbols - first)
        for row in range(0, rows - 3, 4):
            a, b = returns[row, first : first + n], returns[row + 1, first : first + n]
            c, d = returns[row + 2, first : first + n], returns[row + 3, first : first + n]
            for j in range(n):
                own[_MEAN + j] += (a[j] + b[j]) + (c[j] + d[j])
        for row in range(rows - rows % 4, rows):
            a = returns[row, first : first + n]
            for j in range(n):
                own[_MEAN + j] += a[j]
        for j in range(n):
            own[_MEAN + j] /= rows
        for row in range(0, rows - 3, 4):
            a, b = returns[row, first : first + n], returns[row + 1, first : first + n]
            c, d = returns[row + 2, first : first + n], returns[row + 3, first : first + n]
            for j in range(n):
                m = own[_MEAN + j]
                p, q, t, u = a[j] - m, b[j] - m, c[j] - m, d[j] - m
                own[_SCALE + j] += (p * p + q * q) + (t * t + u * u)
        for row in range(rows - rows % 4, rows):
            a = returns[row, first : first + n]
            for j in range(n):
                away = a[j] - own[_MEAN + j]
                own[_SCALE + j] += away * away
        for j in range(n):
            # What is left of equal returns after their mean is rounding, not movement.
            squares, m = own[_SCALE + j], own[_MEAN + j]
            moved = squares > 1e-24 * rows * m * m
            many += 1 if moved else 0
            own[_SCALE + j] = 1.0 / np.sqrt(squares) if moved else 0.0
    sums = np.empty(3 * _LINE)
    for row in range(0, rows, 3):
        sums[:] = 0.0  # as many as fit: each addition to a single one would wait for the last one
        for block in range(blocks):
            own, first = state[block], block * _BLOCK
            n = min(_BLOCK, symbols - first)
            a = returns[row, first : first + n]
            # Past the last row it stands for those that there are not, and counts nothing below.
            b = returns[min(row + 1, rows - 1), first : first + n]
            c = returns[min(row + 2, rows - 1), first : first + n]
            for j in range(n):
                m, s = own[_MEAN + j], own[_SCALE + j]
                p, q, t = (a[j] - m) * s, (b[j] - m) * s, (c[j] - m) * s
                p, q, t = p if s > 0.0 else 0.0, q if s > 0.0 else 0.0, t if s > 0.0 else 0.0
                own[_ONE + j], own[_TWO + j], own[_THREE + j] = p, q, t
                sums[j] += p
                sums[_LINE + j] += q
                sums[2 * _LINE + j] += t
        x = y = z = 0.0
        for j in range(min(_BLOCK, symbols)):
            x += sums[j]
            y += sums[_LINE + j]
            z += sums[2 * _LINE + j]
        y = y if row + 1 < rows else 0.0
        z = z if row + 2 < rows else 0.0
        for block in range(blocks):
            own = state[block]
            for j in range(_BLOCK):
                own[_SUM + j] += own[_ONE + j] * x + own[_TWO + j] * y + own[_THREE + j] * z
    for block in range(blocks):
        own, first = state[block], block * _BLOCK
        for j in range(min(_BLOCK, symbols - first)):
            known = (own[_SUM + j] - 1.0) / (many - 1.0)
            out[first + j] = known if own[_SCALE + j] > 0.0 and many > 1 else np.nan


MEAN_CORRELATION: Final = Kernel(mean_correlation)
