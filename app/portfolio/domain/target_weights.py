"""Target weights by method, within bounds and scaled down to a volatility target."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from app.configuration.domain.model import Configuration, WeightingMethod
from app.foundation.decimal_math import ONE, to_millionths
from app.portfolio.domain.models import FULL, Portfolio
from app.portfolio.domain.weighting import (
    Allocation,
    Covariance,
    Flag,
    WeightRequest,
    WeightRole,
    allocate_weights,
    round_to_total,
)


@dataclass(frozen=True, slots=True)
class MemberConstraint:
    """Role of a member and the reason for it."""

    request: WeightRequest
    reason: str


def compute_targets(
    constraints: Mapping[str, MemberConstraint],
    configuration: Configuration,
    known: Covariance | None = None,
    method: WeightingMethod | None = None,
) -> Allocation:
    """Target weights of the constrained members; `method` stands in for the configured one.

    With a volatility target the funded weights shrink together until it is met, below their
    minimum if necessary; the rest is cash. If the volatility is unknown, no funded weight grows.
    """
    requests = tuple(constraint.request for constraint in constraints.values())
    if (method or configuration.rebalancing.method) is WeightingMethod.FIXED:
        made = _fixed(requests, configuration)
    else:
        made = allocate_weights(requests, configuration.min_weight_u, configuration.max_weight_u)
    limit = configuration.rebalancing.volatility_target
    if limit == 0.0:
        return made
    if known is None or compute_volatility(made.weights_u, known) is None:
        return _not_grown(made, requests)
    return _calmed(made, requests, known, limit)


def compute_volatility(weights_u: Mapping[str, int], known: Covariance) -> float | None:
    """Annualised volatility of weights in micro-percent; None if a held symbol is not covered."""
    return known.volatility({symbol: weight / FULL for symbol, weight in weights_u.items()})


def _fixed(requests: tuple[WeightRequest, ...], configuration: Configuration) -> Allocation:
    """Operator weights, capped by the maximum and scaled down to the room beside locked weights.

    A member without an operator weight gets 0. If no member has one, all keep their weights.
    """
    wanted = configuration.rebalancing.fixed_weights_u
    held = {
        request.symbol: request.held_u for request in requests if request.role is WeightRole.LOCKED
    }
    funded = {
        request.symbol: min(wanted.get(request.symbol, 0), configuration.max_weight_u)
        for request in requests
        if request.role is WeightRole.FUNDED
    }
    if not funded.keys() & wanted.keys():
        kept = {
            request.symbol: request.held_u
            for request in requests
            if request.role is not WeightRole.EXCLUDED
        }
        weights = {request.symbol: kept.get(request.symbol, 0) for request in requests}
        return Allocation(weights, FULL - sum(weights.values()), (Flag.FIXED_UNSET,))
    room, total = max(FULL - sum(held.values()), 0), sum(funded.values())
    flags: tuple[Flag, ...] = ()
    if total > room:
        funded = {symbol: weight * room // total for symbol, weight in funded.items()}
        flags = (Flag.LOCKED_EXCEED,)
    weights = {request.symbol: 0 for request in requests} | held | funded
    return Allocation(weights, FULL - sum(weights.values()), flags)


def apply_no_trade_band(
    target: Allocation,
    constraints: Mapping[str, MemberConstraint],
    bands_u: Mapping[str, int],
    low_u: int,
    high_u: int,
    least_u: Mapping[str, int] = MappingProxyType({}),
    released: AbstractSet[str] = frozenset(),
) -> Allocation:
    """Targets in which funded members inside their band and bounds keep their weight.

    `bands_u` is the allowed distance of each member from its target. Members of `released` move
    even inside their band. Members outside move to their targets, not to the edge of the band.
    They absorb the excess or shortfall of the unchanged ones, within their bands and bounds.
    If that does not fit, further members move, first those whose own distance helps.
    No change is smaller than `least_u` of its symbol. Source: QUANT section 6.
    """
    stuck: set[str] = set()
    while True:
        made = _with_fewest(target, constraints, bands_u, low_u, high_u, stuck, released)
        small = {
            name
            for name, one in constraints.items()
            if 0 < abs(made.weights_u[name] - one.request.held_u) < least_u.get(name, 0)
        }
        if not small:
            return made
        stuck |= small


def _with_fewest(
    target: Allocation,
    constraints: Mapping[str, MemberConstraint],
    bands_u: Mapping[str, int],
    low_u: int,
    high_u: int,
    stuck: AbstractSet[str],
    released: AbstractSet[str],
) -> Allocation:
    """`apply_no_trade_band` with the members of `stuck` keeping their weight."""
    held = {name: one.request.held_u for name, one in constraints.items()}
    ahead = {
        name: target.weights_u[name] - held[name]
        for name, one in constraints.items()
        if _is(one, WeightRole.FUNDED) and name not in stuck
    }
    must = sorted(
        name
        for name, by_u in ahead.items()
        if abs(by_u) > bands_u[name]
        or (by_u and (name in released or not low_u <= held[name] <= high_u))
    )
    kept = {name: held[name] for name in sorted(stuck)}
    leaves = any(
        _is(one, WeightRole.EXCLUDED) and held[name] > 0 for name, one in constraints.items()
    )
    if not must and not leaves:
        weights = {**target.weights_u, **{name: held[name] for name in ahead}, **kept}
        return Allocation(weights, FULL - sum(weights.values()), target.flags)
    others = [name for name in ahead if name not in must]
    spare = sum(ahead[name] for name in others)
    spare += sum(target.weights_u[name] - weight for name, weight in kept.items())
    sign = 1 if spare > 0 else -1
    others.sort(key=lambda name: (-sign * Fraction(ahead[name], bands_u[name] or 1), name))
    moved = must + others
    for count in range(len(must), len(moved) + 1):
        left = kept | {name: held[name] for name in moved[count:]}
        given = _given(moved[:count], left, target, bands_u, low_u, high_u)
        if given is not None:
            return Allocation({**target.weights_u, **left, **given}, target.cash_u, target.flags)
    # Only reductions always fit beside the stuck members; they free cash.
    reduced = {name: min(held[name], target.weights_u[name]) for name in must}
    weights = {**target.weights_u, **{name: held[name] for name in others}, **kept, **reduced}
    return Allocation(weights, FULL - sum(weights.values()), target.flags)


def _given(
    moved: list[str],
    kept: Mapping[str, int],
    target: Allocation,
    bands_u: Mapping[str, int],
    low_u: int,
    high_u: int,
) -> dict[str, int] | None:
    """Weights of the moved members that complete the total; None if bands and bounds forbid it."""
    short = sum(target.weights_u[name] - held for name, held in kept.items())
    ways = {name: target.weights_u[name] for name in moved}
    rooms = [
        max(min(bands_u[name], high_u - target_u if short > 0 else target_u - low_u), 0)
        for name, target_u in ways.items()
    ]
    if abs(short) > sum(rooms):
        return None
    shares = round_to_total(
        [Fraction(abs(short) * one, sum(rooms) or 1) for one in rooms], abs(short)
    )
    sign = 1 if short > 0 else -1
    return {
        name: target_u + sign * one
        for (name, target_u), one in zip(ways.items(), shares, strict=True)
    }


def _is(constraint: MemberConstraint, role: WeightRole) -> bool:
    return constraint.request.role is role


def _not_grown(made: Allocation, requests: tuple[WeightRequest, ...]) -> Allocation:
    held = {request.symbol: request.held_u for request in requests}
    weights = {symbol: min(weight, held[symbol]) for symbol, weight in made.weights_u.items()}
    flags = (*made.flags, Flag.VOLATILITY_UNKNOWN)
    return Allocation(weights, FULL - sum(weights.values()), flags)


def _calmed(
    made: Allocation, requests: tuple[WeightRequest, ...], known: Covariance, limit: float
) -> Allocation:
    funded = {request.symbol for request in requests if request.role is WeightRole.FUNDED}

    def scaled(share: int) -> dict[str, int]:
        return {
            symbol: weight * share // ONE if symbol in funded else weight
            for symbol, weight in made.weights_u.items()
        }

    def is_calm(share: int) -> bool:
        found = compute_volatility(scaled(share), known)
        return found is not None and to_millionths(found) <= to_millionths(limit)

    if is_calm(ONE):
        return made
    weights = scaled(_largest(is_calm))
    flags = (*made.flags, Flag.VOLATILITY_TARGET)
    return Allocation(weights, FULL - sum(weights.values()), flags)


def _largest(fits: Callable[[int], bool]) -> int:
    """Largest share in millionths below the whole that fits; 0 if none does."""
    low, high = 0, ONE
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def drift_weights(
    portfolio: Portfolio, set_at: Mapping[str, Decimal], now: Mapping[str, Decimal]
) -> Portfolio:
    """Portfolio with every weight moved by its price, relative to the equity index.

    `set_at` and `now` are mark prices by symbol, when weights were last set and now. A member
    without both keeps its recorded weight. The others and the cash share the rest in proportion
    to their current value. Weights and cash stay exactly FULL.
    """
    moved = {
        one.symbol: one.weight_u * Fraction(now[one.symbol]) / Fraction(set_at[one.symbol])
        for one in portfolio.members
        if set_at.get(one.symbol, Decimal(0)) > 0 and now.get(one.symbol, Decimal(0)) > 0
    }
    kept = sum(one.weight_u for one in portfolio.members if one.symbol not in moved)
    worth = sum(moved.values(), Fraction(portfolio.cash_u))
    if worth <= 0:
        return portfolio
    share = (FULL - kept) / worth
    names = tuple(moved)
    exact = [moved[name] * share for name in names] + [portfolio.cash_u * share]
    units = round_to_total(exact, FULL - kept)
    weights = dict(zip(names, units, strict=False))
    members = tuple(
        replace(one, weight_u=weights.get(one.symbol, one.weight_u)) for one in portfolio.members
    )
    return replace(portfolio, members=members, cash_u=units[-1])


def read_mark_prices(payload: Mapping[str, Any]) -> dict[str, Decimal]:
    """Known mark prices of an event, by symbol."""
    marks = payload.get("marks", {}).values()
    return {one["symbol"]: Decimal(one["mark"]) for one in marks if one["mark"] is not None}
