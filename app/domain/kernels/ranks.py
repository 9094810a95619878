"""Ranks to normal scores, row by row of a history."""

from functools import lru_cache
from typing import Final

import numpy as np
from scipy.special import ndtri

from app.domain.kernels.compilation import Kernel
from app.domain.market import Floats


@lru_cache(maxsize=2)
def normal_scores(most: int) -> Floats:
    """Phi^-1((r - 0.5) / n) for n = 1..most, one after the other: r = 1, 1.5, 2, ... n of each."""
    sizes = np.arange(1, most + 1)
    many = 2 * sizes - 1
    begin = np.repeat(np.cumsum(many) - many, many)
    rank = 1.0 + (np.arange(many.sum()) - begin) / 2.0
    scores = np.asarray(ndtri((rank - 0.5) / np.repeat(sizes, many)), np.float64)
    scores.flags.writeable = False
    return scores


def ranked_rows(values: Floats, scores: Floats, out: Floats) -> None:
    """(R, N) to (R, N): `rank_to_normal` of each row; ties share, what is not finite is NaN."""
    rows, symbols = values.shape
    held, places = np.empty(symbols), np.empty(symbols, np.int64)
    for row in range(rows):
        n = 0
        for j in range(symbols):
            value = values[row, j]
            out[row, j] = np.nan
            if np.isfinite(value):
                held[n] = value
                places[n] = j
                n += 1
        order = np.argsort(held[:n])
        first = 0
        while first < n:
            last = first
            while last + 1 < n and held[order[last + 1]] == held[order[first]]:
                last += 1
            score = scores[(n - 1) * (n - 1) + first + last]
            for i in range(first, last + 1):
                out[row, places[order[i]]] = score
            first = last + 1


RANKED_ROWS: Final = Kernel(ranked_rows)
