"""Weights from scores and risk: raw shares by method, then exact micro-percent within bounds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np

from app.configuration.domain.model import WeightingMethod
from app.foundation.decimal_math import all_to_millionths, to_significant
from app.market.domain.models import Floats
from app.market.domain.panel import Panel
from app.market.domain.return_statistics import ewma_volatility
from app.market.domain.segments import contiguous, simple_returns
from app.portfolio.domain.models import FULL


class Flag(StrEnum):
    """Property of an allocation that the caller should know."""

    CAP_BOUND_CASH = "cap_bound_cash"  # all at their maximum, the rest is cash
    FLOOR_RELAXED = "floor_relaxed"  # the minimums together exceed the available weight
    ZERO_SCORE_FILL = "zero_score_fill"  # the rest went to symbols without a raw share
    VOLATILITY_TARGET = "volatility_target"  # weights scaled down to the volatility target
    VOLATILITY_UNKNOWN = "volatility_unknown"  # the target cannot be checked: no weight grows
    FIXED_UNSET = "fixed_unset"  # no member has an operator weight: all keep theirs
    LOCKED_EXCEED = "locked_exceed"  # locked weights leave no room: all keep their weight


class WeightRole(StrEnum):
    """Role of a member when weights are set."""

    FUNDED = "funded"
    LOCKED = "locked"  # keeps its weight, because its data or market is not current
    EXCLUDED = "excluded"  # weight 0: below the threshold or no longer tradeable


@dataclass(frozen=True, slots=True)
class WeightRequest:
    """One member's claim to weight; `raw_share` q = exp(kappa z) / sigma counts when funded."""

    symbol: str
    role: WeightRole
    raw_share: float
    held_u: int  # current weight, kept when locked


@dataclass(frozen=True, slots=True)
class Allocation:
    """Weights by symbol in micro-percent; together with the cash exactly FULL."""

    weights_u: Mapping[str, int]
    cash_u: int
    flags: tuple[Flag, ...]


_MAX_EXPONENT: Final = 700.0  # exp() of more exceeds a float


def raw_share(z: float, volatility: float, tilt: float) -> float:
    """q = exp(tilt * z) / volatility; 0 where the result would not be a positive finite number."""
    exponent = tilt * z
    usable = math.isfinite(exponent) and exponent <= _MAX_EXPONENT and volatility > 0.0
    value = math.exp(exponent) / volatility if usable else 0.0
    return value if math.isfinite(value) else 0.0


def allocate_weights(requests: Sequence[WeightRequest], low_u: int, high_u: int) -> Allocation:
    """Fund each request within [low_u, high_u]; locked members keep their weight.

    Deterministic and independent of the order of requests. Weight beyond the maximums stays cash.
    Minimums that together exceed the room are scaled down and flagged.
    """
    held = {
        request.symbol: request.held_u for request in requests if request.role is WeightRole.LOCKED
    }
    funded = sorted(
        (request for request in requests if request.role is WeightRole.FUNDED),
        key=lambda request: request.symbol,
    )
    weights = {request.symbol: 0 for request in requests} | held
    room = FULL - sum(held.values())
    flags: tuple[Flag, ...] = ()
    if funded and room <= 0:
        flags = (Flag.LOCKED_EXCEED,)
    elif funded:
        shares, flags = _projected(
            tuple(request.raw_share for request in funded), low_u, high_u, room
        )
        weights |= {request.symbol: share for request, share in zip(funded, shares, strict=True)}
    return Allocation(weights, FULL - sum(weights.values()), flags)


@lru_cache(maxsize=32)
def _projected(
    raw_shares: tuple[float, ...], low_u: int, high_u: int, room_u: int
) -> tuple[tuple[int, ...], tuple[Flag, ...]]:
    """Cached `project_weights`: raw shares change with scores, less often than prices."""
    shares, flags = project_weights(raw_shares, low_u, high_u, room_u)
    return tuple(shares), tuple(flags)


def project_weights(
    raw_shares: Sequence[float], low_u: int, high_u: int, room_u: int
) -> tuple[list[int], list[Flag]]:
    """w = clip(lambda * s, low, high) with sum w = room, exactly, in integers.

    Raw shares count with nine significant digits, non-positive and non-finite ones as zero. Units
    that rounding down leaves over go to the largest remainders, the earlier position first. The
    sum falls short of the room only when every weight stands at the maximum.
    """
    count = len(raw_shares)
    high = min(high_u, room_u)
    if count * high <= room_u:
        flags = [Flag.CAP_BOUND_CASH] if count * high < room_u else []
        return [high] * count, flags
    flags = []
    low = Fraction(min(low_u, high))
    if count * low > room_u:
        low = Fraction(room_u, count)
        flags.append(Flag.FLOOR_RELAXED)
    exact = [_exact(one) for one in raw_shares]
    positive = [one for one in exact if one > 0]
    spare = room_u - (count - len(positive)) * low
    if positive and len(positive) * high < spare:
        # Symbols with a raw share are at the maximum; spread the rest evenly over the others.
        rest = (room_u - Fraction(len(positive) * high)) / (count - len(positive))
        filled = [Fraction(high) if one > 0 else rest for one in exact]
        return round_to_total(filled, room_u), [*flags, Flag.ZERO_SCORE_FILL]
    if not positive:
        return round_to_total([Fraction(room_u, count)] * count, room_u), flags
    level = _level(positive, low, Fraction(high), spare)
    return round_to_total([_clip(level * one, low, Fraction(high)) for one in exact], room_u), flags


def _exact(value: float) -> Fraction:
    return Fraction(to_significant(value)) if math.isfinite(value) and value > 0.0 else Fraction(0)


def _clip(value: Fraction, low: Fraction, high: Fraction) -> Fraction:
    return min(max(value, low), high)


def _level(
    raw_shares: Sequence[Fraction], low: Fraction, high: Fraction, total: Fraction
) -> Fraction:
    """The lambda with sum clip(lambda * s, low, high) = total; n*low <= total <= n*high."""
    breaks = sorted({bound / one for one in raw_shares for bound in (low, high)})

    def filled(level: Fraction) -> Fraction:
        return sum((_clip(level * one, low, high) for one in raw_shares), Fraction(0))

    # The sum grows with lambda, linearly between breakpoints: find the segment, then solve.
    first, last = 0, len(breaks) - 1
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if filled(breaks[middle]) <= total else (first, middle)
    left, right = breaks[first], breaks[last]
    below, above = filled(left), filled(right)
    # low < high here, so the sum grows on that segment.
    return left + (right - left) * (total - below) / (above - below)


def round_to_total(shares: Sequence[Fraction], room_u: int) -> list[int]:
    """Round down to integers and give the missing units to the largest remainders."""
    units = [math.floor(share) for share in shares]
    missing = room_u - sum(units)
    by_remainder = sorted(range(len(shares)), key=lambda i: (units[i] - shares[i], i))
    for position in by_remainder[:missing]:
        units[position] += 1
    return units


def hierarchical_parity(matrix: Floats) -> Floats:
    """Shares (N,) for a covariance (N, N) with a positive diagonal: none negative, the sum is 1.

    Ward's linkage of the distances sqrt((1 - correlation) / 2) orders similar symbols side by side.
    The order is bisected repeatedly; each half gets a share by the inverse of its variance at
    inverse-variance shares. No matrix is inverted, so a singular one is allowed. Of distances with
    squares equal to 6 decimals the earlier pair is joined. Source: QUANT section 5, Lopez de
    Prado 2016.
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
    """Leaves of the tree from left to right; the older cluster is on the left."""
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
            # Lance-Williams: Ward's distance from the third cluster to the merged two.
            squares[third, new] = (
                (counts[0] + count) * to_one + (counts[1] + count) * to_other - count * near
            ) / (sum(counts) + count)
        leaves[new] = leaves.pop(one) + leaves.pop(other)
        squares[[one, other], :] = squares[:, [one, other]] = np.inf
    return next(iter(leaves.values()), [])


def _variance(matrix: Floats, part: list[int]) -> float:
    """Variance of a cluster at inverse-variance shares."""
    inner = matrix[np.ix_(part, part)]
    shares = 1.0 / np.diag(inner)
    shares /= shares.sum()
    return max(float(shares @ inner @ shares), 0.0)


COVARIANCE_DAYS: Final = 250
_LEAST_DAYS: Final = 30
_SWEEPS: Final = 500
_LEAST_BUDGET: Final = 1e-9
_EXACT: Final = 1e-14  # relative change of a share at which the descent ends


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
    """Covariance of the symbols with enough closed daily bars, over at most the last 250 days.

    It is the shrunk correlation over the common days, times EWMA volatilities over each symbol's
    own days. Variances are not shrunk, because coins differ too much in variance. A symbol is
    left out if it has under 30 returns, or if it leaves the others under 30 common days.
    """
    simple = simple_returns(contiguous(daily), COVARIANCE_DAYS)
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
    """(N, N) correlation of (T, N) returns without gaps, shrunk towards zero.

    A symbol of constant price correlates with itself only.
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
    """Shares (N,) whose risk contributions are proportional to `budgets` (N,).

    Without budgets all contribute the same; budgets and the diagonal of `matrix` are positive.
    Cyclical coordinate descent, at most `most` sweeps: with q_i = sum over j != i of S_ij x_j,
    x_i = (-q_i + sqrt(q_i^2 + 4 S_ii b_i)) / (2 S_ii), then normalised.
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
            # Equal to the other branch, without cancellation at a large positive q.
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

    The method `fixed` ignores them. Under both parities a member that the covariance does not
    cover gets the mean of the others, scaled by the inverse of its volatility.
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
    """Risk contributions proportional to exp(tilt * z): better scores take more risk."""

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
    # By name, so that a change of ranks moves no weight.
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
