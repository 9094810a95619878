"""Mean correlation of each symbol with all others, without the matrix of all pairs."""

from typing import Final

import numpy as np

from app.market.domain.models import Floats
from app.scoring.domain.kernels.compilation import Kernel

_BLOCK: Final = 608  # columns, a whole universe: rows are read through as they lie in memory
_LINE: Final = 616  # more than _BLOCK: addresses 4096 bytes apart hold each other up
_ORIGIN, _MEAN, _SCALE, _ALONG = range(0, 4 * _LINE, _LINE)
_ONE, _TWO, _THREE, _FOUR = range(4 * _LINE, 8 * _LINE, _LINE)
_QUARTER: Final = _BLOCK // 4
_PART: Final = _QUARTER // 4
_SUMS: Final = 8 * _LINE
_DEPTH: Final = _SUMS + 4 * _QUARTER


def mean_correlation(returns: Floats, out: Floats) -> None:  # noqa: C901, PLR0912, PLR0915  # as take
    """(T, N) returns to (N,): with unit columns u it is (u_i . sum u_j - 1) / (M - 1).

    The order of rows changes no more than rounding. A symbol with a hole, or that never moved, is
    unknown (NaN) and not among the M; so is everybody where fewer than two are left.
    """
    rows, symbols = returns.shape
    many = 0
    blocks = -(-symbols // _BLOCK)
    state = np.zeros((blocks, _DEPTH))
    for block in range(blocks):
        own, first = state[block], block * _BLOCK
        n = min(_BLOCK, symbols - first)
        # Sums about one of the column's own numbers lose few digits, and need one look at it.
        for row in range(min(rows, 1)):
            a = returns[row, first : first + n]
            for j in range(n):
                own[_ORIGIN + j] = a[j]
        for row in range(0, rows - 3, 4):
            a, b = returns[row, first : first + n], returns[row + 1, first : first + n]
            c, d = returns[row + 2, first : first + n], returns[row + 3, first : first + n]
            for j in range(n):
                origin = own[_ORIGIN + j]
                p, q, t, u = a[j] - origin, b[j] - origin, c[j] - origin, d[j] - origin
                own[_MEAN + j] += (p + q) + (t + u)
                own[_SCALE + j] += (p * p + q * q) + (t * t + u * u)
        for row in range(rows - rows % 4, rows):
            a = returns[row, first : first + n]
            for j in range(n):
                away = a[j] - own[_ORIGIN + j]
                own[_MEAN + j] += away
                own[_SCALE + j] += away * away
        for j in range(n):
            away = own[_MEAN + j] / rows
            squares = own[_SCALE + j] - own[_MEAN + j] * away
            own[_MEAN + j] = m = own[_ORIGIN + j] + away
            # What is left of equal returns after their mean is rounding, not movement.
            moved = squares > 1e-24 * rows * m * m
            many += 1 if moved else 0
            own[_SCALE + j] = 1.0 / np.sqrt(squares) if moved else 0.0
    for row in range(0, rows, 4):
        x = y = z = w = 0.0
        for block in range(blocks):
            own, first = state[block], block * _BLOCK
            n = min(_BLOCK, symbols - first)
            a = returns[row, first : first + n]
            # Past the last row it stands for those that there are not, and counts nothing below.
            b = returns[min(row + 1, rows - 1), first : first + n]
            c = returns[min(row + 2, rows - 1), first : first + n]
            d = returns[min(row + 3, rows - 1), first : first + n]
            for j in range(n):
                m, s = own[_MEAN + j], own[_SCALE + j]
                p, q, t, u = (a[j] - m) * s, (b[j] - m) * s, (c[j] - m) * s, (d[j] - m) * s
                own[_ONE + j], own[_TWO + j] = p if s > 0.0 else 0.0, q if s > 0.0 else 0.0
                own[_THREE + j], own[_FOUR + j] = t if s > 0.0 else 0.0, u if s > 0.0 else 0.0
            # Folded twice before they are added up: each addition to one number waits for the last.
            for i in range(4):
                at, to = _ONE + i * _LINE, _SUMS + i * _QUARTER
                for j in range(_QUARTER):
                    own[to + j] = (own[at + j] + own[at + _QUARTER + j]) + (
                        own[at + 2 * _QUARTER + j] + own[at + 3 * _QUARTER + j]
                    )
                for j in range(_PART):
                    own[to + j] += (own[to + _PART + j] + own[to + 2 * _PART + j]) + (
                        own[to + 3 * _PART + j]
                    )
            for j in range(_SUMS, _SUMS + _PART):
                x += own[j]
                y += own[j + _QUARTER]
                z += own[j + 2 * _QUARTER]
                w += own[j + 3 * _QUARTER]
        y = y if row + 1 < rows else 0.0
        z = z if row + 2 < rows else 0.0
        w = w if row + 3 < rows else 0.0
        for block in range(blocks):
            own = state[block]
            for j in range(min(_BLOCK, symbols - block * _BLOCK)):
                p, q, t, u = own[_ONE + j], own[_TWO + j], own[_THREE + j], own[_FOUR + j]
                own[_ALONG + j] += (p * x + q * y) + (t * z + u * w)
    for block in range(blocks):
        own, first = state[block], block * _BLOCK
        for j in range(min(_BLOCK, symbols - first)):
            known = (own[_ALONG + j] - 1.0) / (many - 1.0)
            out[first + j] = known if own[_SCALE + j] > 0.0 and many > 1 else np.nan


MEAN_CORRELATION: Final = Kernel(mean_correlation)
