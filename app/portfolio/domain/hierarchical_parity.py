"""Hierarchical risk parity: members that move alike share one part of the risk (Lopez de Prado)."""

import numpy as np

from app.foundation.decimal_math import all_to_millionths
from app.market.domain.models import Floats


def hierarchical_parity(matrix: Floats) -> Floats:
    """Shares (N,) for a covariance (N, N) with a positive diagonal: none negative, the sum is 1.

    Clusters by Ward's linkage of the distances sqrt((1 - correlation) / 2), puts what is alike
    side by side, then halves that order again and again and gives each half the inverse of its
    variance at inverse-variance shares. Nothing is inverted: a singular matrix is no harm. Between
    distances whose squares are equal to 6 decimals the earlier pair is joined. Source: QUANT
    section 5, Lopez de Prado 2016.
    """
    size = len(matrix)
    shares = np.ones(size)
    parts = [_order(_distances(matrix))]
    while parts:
        part = parts.pop()
        if len(part) < 2:
            continue
        left, right = part[: len(part) // 2], part[len(part) // 2 :]
        risks = _variance(matrix, left), _variance(matrix, right)
        total = sum(risks)
        share = risks[1] / total if total > 0.0 else 0.5  # neither half moves
        shares[left] *= share
        shares[right] *= 1.0 - share
        parts += [left, right]
    return np.asarray(shares / shares.sum(), np.float64)


def _distances(matrix: Floats) -> Floats:
    sd = np.sqrt(np.diag(matrix))
    correlation = np.clip(matrix / np.outer(sd, sd), -1.0, 1.0)
    return np.asarray(np.sqrt((1.0 - correlation) / 2.0), np.float64)


def _order(distances: Floats) -> list[int]:
    """The leaves of the tree from left to right; the cluster that is older stands on the left."""
    size = len(distances)
    leaves = {at: [at] for at in range(size)}
    squares = np.full((2 * size, 2 * size), np.inf)
    upper = np.triu_indices(size, 1)
    squares[upper] = distances[upper] ** 2
    for new in range(size, 2 * size - 1):
        one, other = (
            int(at) for at in np.unravel_index(np.argmin(all_to_millionths(squares)), squares.shape)
        )
        near = squares[one, other]
        counts = len(leaves[one]), len(leaves[other])
        for third in set(leaves) - {one, other}:
            count = len(leaves[third])
            to_one = squares[min(one, third), max(one, third)]
            to_other = squares[min(other, third), max(other, third)]
            # Lance-Williams: Ward's distance from the third to the two as one.
            squares[third, new] = (
                (counts[0] + count) * to_one + (counts[1] + count) * to_other - count * near
            ) / (sum(counts) + count)
        leaves[new] = leaves.pop(one) + leaves.pop(other)
        squares[[one, other], :] = squares[:, [one, other]] = np.inf
    return next(iter(leaves.values()), [])


def _variance(matrix: Floats, part: list[int]) -> float:
    """Of a cluster whose members are held in proportion to the inverse of their variances."""
    inner = matrix[np.ix_(part, part)]
    shares = 1.0 / np.diag(inner)
    shares /= shares.sum()
    return max(float(shares @ inner @ shares), 0.0)
