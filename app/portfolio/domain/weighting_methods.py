"""Shares by method, the covariance that some of them need, and the volatility they lead to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.configuration.domain.model import WeightingMethod
from app.foundation.decimal_math import all_to_millionths
from app.market.domain.models import Floats
from app.market.domain.panel import Panel, simple_returns, unbroken
from app.market.domain.return_statistics import ewma_volatility
from app.portfolio.domain.weight_allocation import raw_share


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


COVARIANCE_DAYS: Final = 250
_LEAST_DAYS: Final = 30
_SWEEPS: Final = 500
_LEAST_BUDGET: Final = 1e-9
_EXACT: Final = 1e-14  # relative change of a share at which the descent has arrived


@dataclass(frozen=True, slots=True)
class Covariance:
    """Annualised covariance of simple returns, (N, N) in the order of `symbols`."""

    symbols: tuple[str, ...]
    matrix: Floats

    def volatility(self, weights: Mapping[str, float]) -> float | None:
        """Annualised volatility of a portfolio; None where a weighted symbol is not covered."""
        if any(weight and symbol not in self.symbols for symbol, weight in weights.items()):
            return None
        shares = np.array([weights.get(symbol, 0.0) for symbol in self.symbols])
        return float(np.sqrt(max(float(shares @ self.matrix @ shares), 0.0)))


def estimate_covariance(daily: Panel, symbols: tuple[str, ...]) -> Covariance:
    """Of the symbols with enough closed daily bars, over their common days.

    Correlations over those days, shrunk, times EWMA volatilities over each one's own days: coins
    differ so much in variance that shrinking that would make the calm wild and the wild calm. The
    last 250 days at most; a symbol without 30 returns of its own is left out, and so is one that
    leaves the others without 30 days in common.
    """
    simple = simple_returns(unbroken(daily), COVARIANCE_DAYS)
    returns = {name: simple[:, at] for at, name in enumerate(daily.symbols) if name in symbols}
    lengths = {name: int(np.isfinite(one).sum()) for name, one in returns.items()}
    common = np.ones(len(simple), dtype=np.bool_)
    taken: list[str] = []
    # Longest history first, so that a young symbol cannot push the others out.
    for name in sorted(returns, key=lambda one: (-lengths[one], one)):
        together = common & np.isfinite(returns[name])
        if together.sum() >= _LEAST_DAYS:
            common = together
            taken.append(name)
    ordered = tuple(name for name in symbols if name in taken)
    if not ordered:
        return Covariance((), np.empty((0, 0)))
    own = np.column_stack([returns[name] for name in ordered])
    volatility = ewma_volatility(own, _LEAST_DAYS)
    return Covariance(ordered, estimate_correlation(own[common]) * np.outer(volatility, volatility))


def estimate_correlation(returns: Floats) -> Floats:
    """(N, N) correlation of (T, N) returns without holes, shrunk towards none at all.

    A symbol without moves correlates with itself only.
    """
    spread = returns.std(axis=0)
    moved = np.flatnonzero(spread > 0.0)
    matrix = np.eye(returns.shape[1])
    if len(moved):
        matrix[np.ix_(moved, moved)] = shrink_covariance(returns[:, moved] / spread[moved])[0]
    return matrix


def shrink_covariance(returns: Floats) -> tuple[Floats, float]:
    """Ledoit-Wolf 2004 covariance of (T, N) returns towards mu * I, and the shrinkage."""
    count, size = returns.shape
    centred = returns - returns.mean(axis=0)
    sample = centred.T @ centred / count
    mu = float(np.trace(sample)) / size
    target = mu * np.eye(size)
    distance = float(((sample - target) ** 2).sum()) / size
    squares = centred**2
    noise = (float((squares.T @ squares).sum()) / count - float((sample**2).sum())) / (count * size)
    share = 0.0 if distance <= 0.0 else min(noise, distance) / distance
    return share * target + (1.0 - share) * sample, share


def risk_parity(matrix: Floats, budgets: Floats | None = None, most: int = _SWEEPS) -> Floats:
    """Shares (N,) that contribute risk as `budgets` (N,) say, by cyclical coordinate descent.

    The same each without budgets; only their proportions count, and they are positive. `matrix`
    has a positive diagonal. x_i = (-q_i + sqrt(q_i^2 + 4 S_ii b_i)) / (2 S_ii) with q_i = sum over
    j != i of S_ij x_j, then normalised. A dozen sweeps suffice; after `most` it ends in any case.
    """
    size = len(matrix)
    diagonal = np.diag(matrix)
    shares = 1.0 / np.sqrt(diagonal)
    wanted = np.ones(size) if budgets is None else budgets
    wanted = wanted / wanted.sum()
    moved, sweeps = np.inf, 0
    while moved >= _EXACT and sweeps < most:
        before, sweeps = shares.copy(), sweeps + 1
        for i in range(size):
            q = float(matrix[i] @ shares - diagonal[i] * shares[i])
            root = np.sqrt(q * q + 4.0 * diagonal[i] * wanted[i])
            # The same root without the cancellation that a large positive q would bring.
            shares[i] = (
                2.0 * wanted[i] / (q + root) if q > 0.0 else (root - q) / (2.0 * diagonal[i])
            )
        moved = float(np.abs(shares / before - 1.0).max())
    return np.asarray(shares / shares.sum(), np.float64)


@dataclass(frozen=True, slots=True)
class MethodInput:
    """Inputs of a weighting method for one member; the covariance covers all members."""

    z: float
    volatility: float | None  # annualised
    tilt: float


def raw_shares(
    method: WeightingMethod, members: Mapping[str, MethodInput], known: Covariance | None
) -> dict[str, float]:
    """Raw share of every member; only the proportions count, 0 means none.

    `fixed` is not a matter of proportions: its weights are the operator's. A member that the
    covariance does not cover gets, under both parities, the mean of the others in proportion to
    the inverse of its volatility.
    """
    return {
        WeightingMethod.SCORE_TILTED: _tilted,
        WeightingMethod.INVERSE_VOLATILITY: _inverse,
        WeightingMethod.RISK_PARITY: _parity,
        WeightingMethod.HRP: _hierarchical,
        WeightingMethod.EQUAL: _equal,
        WeightingMethod.FIXED: _equal,
    }[method](members, known)


def _tilted(members: Mapping[str, MethodInput], _known: Covariance | None) -> dict[str, float]:
    return {
        symbol: raw_share(one.z, one.volatility or 0.0, one.tilt) for symbol, one in members.items()
    }


def _inverse(members: Mapping[str, MethodInput], _known: Covariance | None) -> dict[str, float]:
    return {symbol: raw_share(0.0, one.volatility or 0.0, 0.0) for symbol, one in members.items()}


def _equal(members: Mapping[str, MethodInput], _known: Covariance | None) -> dict[str, float]:
    return dict.fromkeys(members, 1.0)


def _parity(members: Mapping[str, MethodInput], known: Covariance | None) -> dict[str, float]:
    """Each contributes risk in proportion to exp(tilt * z): better scores may bring more of it."""

    def by_score(matrix: Floats, names: Sequence[str]) -> Floats:
        own = [members[name] for name in names]
        # Lower limit: a budget of zero would break the descent for all members.
        budgets = np.array([max(raw_share(one.z, 1.0, one.tilt), _LEAST_BUDGET) for one in own])
        return risk_parity(matrix, budgets)

    return _by_risk(members, known, by_score)


def _hierarchical(members: Mapping[str, MethodInput], known: Covariance | None) -> dict[str, float]:
    return _by_risk(members, known, lambda matrix, _: hierarchical_parity(matrix))


def _by_risk(
    members: Mapping[str, MethodInput],
    known: Covariance | None,
    method: Callable[[Floats, Sequence[str]], Floats],
) -> dict[str, float]:
    inverse = _inverse(members, known)
    if known is None:
        return inverse
    # By name, so that ranks that change places move no weight.
    moving = sorted(
        (
            at
            for at, symbol in enumerate(known.symbols)
            if symbol in members and known.matrix[at, at] > 0.0
        ),
        key=lambda at: known.symbols[at],
    )
    if not moving:
        return inverse
    names = [known.symbols[at] for at in moving]
    shares = method(known.matrix[np.ix_(moving, moving)], names)
    found = dict(zip(names, (float(share) for share in shares), strict=True))
    scale = 1.0 / sum(inverse[name] for name in names) if any(map(inverse.get, names)) else 0.0
    return {symbol: found.get(symbol, inverse[symbol] * scale) for symbol in members}
