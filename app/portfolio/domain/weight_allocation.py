"""Scores and risk become exact micro-percent weights within bounds; what does not fit is cash."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Final

from app.foundation.decimal_math import to_significant
from app.portfolio.domain.models import FULL


class Flag(StrEnum):
    """Remarkable property of a set of weights."""

    CAP_BOUND_CASH = "cap_bound_cash"  # all at their maximum, the rest is cash
    FLOOR_RELAXED = "floor_relaxed"  # the minimums alone exceed what there is to give
    ZERO_SCORE_FILL = "zero_score_fill"  # the rest went to symbols without a raw share
    VOLATILITY_TARGET = "volatility_target"  # weights shrunk until the portfolio is calm enough
    VOLATILITY_UNKNOWN = "volatility_unknown"  # nothing grows: a target needs it and it is missing
    FIXED_UNSET = "fixed_unset"  # the operator set a weight for no member: all keep theirs
    LOCKED_EXCEED = "locked_exceed"  # what may not move leaves no room: all keep their weight


class Role(StrEnum):
    """Role of a member when weights are set."""

    FUNDED = "funded"
    LOCKED = "locked"  # keeps its weight and may not grow: its data or market stands still
    EXCLUDED = "excluded"  # weight 0: below the threshold or no longer tradeable


@dataclass(frozen=True, slots=True)
class WeightRequest:
    """One member's claim to weight; `raw_share` q = exp(kappa z) / sigma counts when funded."""

    symbol: str
    role: Role
    raw_share: float
    held_u: int  # present weight, kept when locked


@dataclass(frozen=True, slots=True)
class Allocation:
    """Weights by symbol in micro-percent; together with the cash exactly FULL."""

    weights_u: Mapping[str, int]
    cash_u: int
    flags: tuple[Flag, ...]


_MAX_EXPONENT: Final = 700.0  # exp() of more is no longer a float


def raw_share(z: float, volatility: float, tilt: float) -> float:
    """q = exp(tilt * z) / volatility; 0 where the result would not be a positive finite number."""
    exponent = tilt * z
    usable = math.isfinite(exponent) and exponent <= _MAX_EXPONENT and volatility > 0.0
    value = math.exp(exponent) / volatility if usable else 0.0
    return value if math.isfinite(value) else 0.0


def allocate_weights(requests: Sequence[WeightRequest], low_u: int, high_u: int) -> Allocation:
    """Fund each request within [low_u, high_u]; locked members keep their weight.

    Deterministic and independent of the order of requests. Bounds are never stretched: what the
    maximums leave over is cash. Minimums that together exceed the room are scaled down and
    flagged.
    """
    held = {request.symbol: request.held_u for request in requests if request.role is Role.LOCKED}
    funded = sorted(
        (request for request in requests if request.role is Role.FUNDED),
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
        # Symbols with a raw share are full: the rest is spread evenly over the others.
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

    # The sum grows with lambda and is linear between two breakpoints: find the stretch, then solve.
    first, last = 0, len(breaks) - 1
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if filled(breaks[middle]) <= total else (first, middle)
    left, right = breaks[first], breaks[last]
    below, above = filled(left), filled(right)
    # low < high here, so the sum does grow on the stretch that the search ends on.
    return left + (right - left) * (total - below) / (above - below)


def round_to_total(shares: Sequence[Fraction], room_u: int) -> list[int]:
    """Integers below the exact shares, and the missing units to the largest remainders."""
    units = [math.floor(share) for share in shares]
    missing = room_u - sum(units)
    by_remainder = sorted(range(len(shares)), key=lambda i: (units[i] - shares[i], i))
    for position in by_remainder[:missing]:
        units[position] += 1
    return units
