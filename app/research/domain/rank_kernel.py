"""Ranks to normal scores, row by row of a history."""

from functools import lru_cache
from typing import Final

import numpy as np
from scipy.special import ndtri

from app.market.domain.models import Floats
from app.research.domain.compilation import Kernel


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


def ranked_rows(values: Floats, scores: Floats, out: Floats) -> None:  # noqa: C901  # as add_bars
    """(R, N) to (R, N): `rank_to_normal` of each row; ties share, what is not finite is NaN.

    Sorted by the bytes of the numbers, lowest first: no comparison that the processor has to guess.
    """
    rows, symbols = values.shape
    held, bits = np.empty(symbols), np.empty(symbols, np.int64)
    order, later = np.empty(symbols, np.int64), np.empty(symbols, np.int64)
    begin = np.empty(256, np.int64)
    for row in range(rows):
        n = 0
        for j in range(symbols):
            value = values[row, j]
            out[row, j] = np.nan
            order[n] = j
            n += 1 if np.isfinite(value) else 0
            held[j] = value
        raw = held.view(np.int64)
        for j in range(symbols):
            # As integers negative numbers are in reverse, and behind the positive ones.
            bits[j] = raw[j] ^ ((raw[j] >> 63) | (-1 << 63))
        for shift in range(0, 64, 8):
            begin[:] = 0
            for i in range(n):
                begin[(bits[order[i]] >> shift) & 255] += 1
            if n == 0 or begin[(bits[order[0]] >> shift) & 255] == n:
                continue
            total = 0
            for digit in range(256):
                count = begin[digit]
                begin[digit] = total
                total += count
            for i in range(n):
                digit = (bits[order[i]] >> shift) & 255
                later[begin[digit]] = order[i]
                begin[digit] += 1
            order, later = later, order
        first = 0
        while first < n:
            last = first
            while last + 1 < n and held[order[last + 1]] == held[order[first]]:
                last += 1
            score = scores[(n - 1) * (n - 1) + first + last]
            for i in range(first, last + 1):
                out[row, order[i]] = score
            first = last + 1


RANKED_ROWS: Final = Kernel(ranked_rows)
