"""Drift, triggers and the plan of weight changes with their reasons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.configuration.domain.model import Configuration, WeightingMethod
from app.foundation.decimal_math import to_millionths
from app.portfolio.domain.models import FULL, Member, Portfolio
from app.portfolio.domain.target_weights import (
    MemberConstraint,
    apply_no_trade_band,
    compute_targets,
    compute_volatility,
)
from app.portfolio.domain.weighting import (
    Allocation,
    Covariance,
    MethodInput,
    WeightRequest,
    WeightRole,
    raw_shares,
)

_CALM: Final = 1.05  # multiple of the target volatility above which the risk trigger fires


class Trigger(StrEnum):
    DRIFT = "drift"  # a weight is further from its target than the threshold
    BOUND = "bound"  # a funded weight lies outside its bounds
    MEMBERSHIP = "membership"  # members changed since weights were last set
    INTERVAL = "interval"  # the interval has passed, and a weight is beyond its lower threshold
    RISK = "risk"  # the portfolio is more volatile than its target


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """State of one member at the moment of a decision; None means unknown."""

    symbol: str
    is_open: bool  # the contract's status is Open
    is_halted: bool  # the exchange is not trading
    is_fresh: bool  # quotes and score are within their age limits
    score: float | None
    z: float | None
    volatility: float | None
    trading_cost: float | None  # fraction of the traded value: fee plus half the spread
    ban: str | None = None  # the operator's reason for the ban
    is_pinned: bool = False  # the operator keeps it
    is_leaving: bool = False  # its replacement is confirmed
    doubt: str | None = None  # reason of the price quarantine
    is_ending: bool = False  # its contract is open and about to end
    is_frozen: bool = False  # no trades while its index moves
    is_paused: bool = False  # the exchange has stopped trading in it for a time


@dataclass(frozen=True, slots=True)
class WeightChange:
    """One member's change of weight."""

    symbol: str
    old_u: int
    new_u: int
    action: str  # enter, exit, increase, decrease
    reason: str

    @property
    def change_u(self) -> int:
        return self.new_u - self.old_u


@dataclass(frozen=True, slots=True)
class Plan:
    """Planned weight changes; none without a trigger."""

    changes: tuple[WeightChange, ...]
    triggers: tuple[Trigger, ...]
    allocation: Allocation  # the targets, also when nothing is done
    constraints: Mapping[str, MemberConstraint]
    turnover_u: int  # sum of the absolute changes
    cost: float | None  # fraction of equity; None if it is unknown for one of the changes
    waits_until: datetime | None = None  # time until which the drift trigger waits
    held_back: tuple[str, ...] = ()  # due to change, by less than the lot rule trades


def may_trade(score: float, member: Member, configuration: Configuration) -> bool:
    """Enter threshold for a member without weight, leave threshold for one that is traded."""
    traded = member.target_weight_u > 0
    least = configuration.exit_score if traded else configuration.entry_score
    return to_millionths(score) >= to_millionths(least)


def constrain_member(
    member: Member,
    status: MemberStatus,
    configuration: Configuration,
    method: WeightingMethod = WeightingMethod.SCORE_TILTED,
) -> MemberConstraint:
    """Role of the member and its reason; the first rule that applies decides.

    The request has no raw share yet, because that depends on all members together.
    """
    score, z = status.score, status.z
    locked, excluded = WeightRole.LOCKED, WeightRole.EXCLUDED
    below = score is not None and not may_trade(score, member, configuration)
    kept = below and status.is_pinned
    unsized = status.volatility is None and method not in _WITHOUT_VOLATILITY
    rules = (
        (status.is_paused, locked, "the contract is paused: the weight stays"),
        (not status.is_open, excluded, "the contract is not open"),
        (status.is_halted, locked, "the market is halted: the weight stays"),
        (status.is_ending, excluded, "its delisting is near"),
        (status.ban is not None, excluded, f"it is banned: {status.ban}"),
        (not status.is_fresh, locked, "its data is stale: the weight stays"),
        (
            status.doubt is not None,
            locked,
            f"its prices are in quarantine: the weight stays ({status.doubt})",
        ),
        (status.is_frozen, locked, "it has no trades: the weight stays"),
        (score is None or z is None, locked, "it has no score: the weight stays"),
        (status.is_leaving, excluded, "its replacement is confirmed"),
        (kept, locked, "its score is below the trading threshold, but it is pinned"),
        (below, excluded, "its score is below the trading threshold"),
        (unsized, locked, "its volatility is not known: the weight stays"),
    )
    role, reason = next(
        ((role, reason) for applies, role, reason in rules if applies),
        (WeightRole.FUNDED, "score and volatility give its share"),
    )
    return MemberConstraint(WeightRequest(member.symbol, role, 0.0, member.weight_u), reason)


_GROUND: Final = {
    WeightingMethod.SCORE_TILTED: "score and volatility give its share",
    WeightingMethod.INVERSE_VOLATILITY: "its volatility gives its share",
    WeightingMethod.RISK_PARITY: "each member is to contribute the same risk",
    WeightingMethod.HRP: "those that move alike share one part of the risk",
    WeightingMethod.EQUAL: "all funded members weigh the same",
    WeightingMethod.FIXED: "the operator set its weight",
}
_WITHOUT_VOLATILITY: Final = (WeightingMethod.EQUAL, WeightingMethod.FIXED)
_UNSET: Final = "the operator set no weight for it"


def constrain_members(
    portfolio: Portfolio,
    statuses: Mapping[str, MemberStatus],
    configuration: Configuration,
    known: Covariance | None = None,
    method: WeightingMethod | None = None,
) -> dict[str, MemberConstraint]:
    """Constraint of every member; `statuses` holds their states by symbol."""
    used = method or configuration.rebalancing.method
    everyone = ((one, statuses[one.symbol]) for one in portfolio.members)
    constraints = {
        one.symbol: constrain_member(one, found, configuration, used) for one, found in everyone
    }
    funded = {
        symbol: MethodInput(
            statuses[symbol].z or 0.0, statuses[symbol].volatility, configuration.score_tilt
        )
        for symbol, constraint in constraints.items()
        if constraint.request.role is WeightRole.FUNDED
    }
    pulls = raw_shares(used, funded, known)
    asked = funded if used is not WeightingMethod.FIXED else configuration.rebalancing.fixed_weights
    return constraints | {
        symbol: MemberConstraint(
            replace(constraints[symbol].request, raw_share=pull),
            _GROUND[used] if symbol in asked else _UNSET,
        )
        for symbol, pull in pulls.items()
    }


def plan_rebalance(
    portfolio: Portfolio,
    statuses: Mapping[str, MemberStatus],
    configuration: Configuration,
    at: datetime,
    known: Covariance | None = None,
    method: WeightingMethod | None = None,
    *,
    rebalanced_at: datetime | None = None,
    is_interval_done: bool = False,
    least_u: Mapping[str, int] = MappingProxyType({}),
) -> Plan:
    """Plan that brings weights back to their targets; empty without a trigger.

    `portfolio` has the weights after price drift. A drift of exactly the threshold is no trigger.
    Members inside their band stay, the others absorb the rest, and a second plan right after the
    first is empty. Drift waits for `rebalance_min_spacing_s` after `rebalanced_at`; only excluded
    members leave into cash before. `is_interval_done` means that a check since `interval_slot`
    found nothing to do. `least_u` is the smallest traded change by symbol.
    """
    constraints = constrain_members(portfolio, statuses, configuration, known, method)
    allocation = compute_targets(constraints, configuration, known, method)
    triggers, waits_until = _triggers(
        portfolio,
        constraints,
        allocation,
        configuration,
        at,
        statuses,
        known,
        rebalanced_at,
        least_u,
        is_interval_done=is_interval_done,
    )
    reasons = {symbol: constraint.reason for symbol, constraint in constraints.items()}
    if not triggers:
        made = plan_toward(portfolio, allocation, triggers, reasons, constraints, statuses)
        return replace(made, waits_until=waits_until)
    by_interval = Trigger.INTERVAL in triggers
    settled = keep_within_no_trade_bands(
        allocation, constraints, statuses, configuration, known, least_u, by_interval=by_interval
    )
    if waits_until is not None:
        settled = _without_excluded(portfolio, allocation, constraints, least_u)
    made = plan_toward(portfolio, settled, triggers, reasons, constraints, statuses)
    threshold_u = _threshold_u(configuration, by_interval=by_interval)
    held_back = (
        one.symbol
        for one in portfolio.members
        for away_u in (abs(allocation.weights_u[one.symbol] - one.weight_u),)
        if 0 < away_u < least_u.get(one.symbol, 0)
        and settled.weights_u[one.symbol] == one.weight_u
        and (
            constraints[one.symbol].request.role is WeightRole.EXCLUDED
            or away_u
            > _no_trade_band_u(
                allocation.weights_u[one.symbol], statuses[one.symbol], configuration, threshold_u
            )
        )
    )
    return replace(made, waits_until=waits_until, held_back=tuple(sorted(held_back)))


def interval_slot(
    portfolio: Portfolio, configuration: Configuration, at: datetime
) -> datetime | None:
    """Latest end of a whole interval since weights were set; None before the first."""
    if portfolio.weighted_at is None:
        return None
    interval = timedelta(seconds=configuration.rebalance_interval_s)
    passed = (at - portfolio.weighted_at) // interval
    return portfolio.weighted_at + passed * interval if passed > 0 else None


def _without_excluded(
    portfolio: Portfolio,
    target: Allocation,
    constraints: Mapping[str, MemberConstraint],
    least_u: Mapping[str, int],
) -> Allocation:
    """Current weights; those of excluded members become cash if the lot rule trades them."""
    weights = {
        one.symbol: 0
        if constraints[one.symbol].request.role is WeightRole.EXCLUDED
        and one.weight_u >= least_u.get(one.symbol, 0)
        else one.weight_u
        for one in portfolio.members
    }
    return Allocation(weights, FULL - sum(weights.values()), target.flags)


def keep_within_no_trade_bands(
    target: Allocation,
    constraints: Mapping[str, MemberConstraint],
    statuses: Mapping[str, MemberStatus],
    configuration: Configuration,
    known: Covariance | None = None,
    least_u: Mapping[str, int] = MappingProxyType({}),
    *,
    by_interval: bool = False,
) -> Allocation:
    """Targets without the trades within the bands, while the volatility target is met.

    If the unchanged weights are too volatile, further members move one by one, those furthest
    above their targets first; the bands of the others apply.
    """
    threshold_u = _threshold_u(configuration, by_interval=by_interval)
    bands = {
        symbol: _no_trade_band_u(
            target.weights_u[symbol], statuses[symbol], configuration, threshold_u
        )
        for symbol in constraints
    }
    low, high = configuration.min_weight_u, configuration.max_weight_u
    fewer = apply_no_trade_band(target, constraints, bands, low, high, least_u)
    above = sorted(
        bands, key=lambda name: (target.weights_u[name] - constraints[name].request.held_u, name)
    )
    for count in range(1, len(above) + 1):
        if not _is_too_volatile(fewer.weights_u, configuration, known):
            return fewer
        fewer = apply_no_trade_band(
            target, constraints, bands, low, high, least_u, frozenset(above[:count])
        )
    if _is_too_volatile(fewer.weights_u, configuration, known):
        return apply_no_trade_band(target, constraints, dict.fromkeys(bands, 0), low, high, least_u)
    return fewer


def plan_toward(
    portfolio: Portfolio,
    allocation: Allocation,
    triggers: tuple[Trigger, ...],
    reasons: Mapping[str, str],
    constraints: Mapping[str, MemberConstraint],
    statuses: Mapping[str, MemberStatus],
) -> Plan:
    """Plan that moves every member to its weight of `allocation`; empty without a trigger."""
    changes = tuple(
        WeightChange(member.symbol, member.weight_u, new_u, _action(member.weight_u, new_u), why)
        for member in portfolio.members
        if triggers
        for new_u, why in ((allocation.weights_u[member.symbol], reasons[member.symbol]),)
        if new_u != member.weight_u
    )
    turnover_u = sum(abs(change.change_u) for change in changes)
    return Plan(changes, triggers, allocation, constraints, turnover_u, _cost(changes, statuses))


def _triggers(
    portfolio: Portfolio,
    constraints: Mapping[str, MemberConstraint],
    allocation: Allocation,
    configuration: Configuration,
    at: datetime,
    statuses: Mapping[str, MemberStatus],
    known: Covariance | None,
    rebalanced_at: datetime | None,
    least_u: Mapping[str, int],
    *,
    is_interval_done: bool,
) -> tuple[tuple[Trigger, ...], datetime | None]:
    """Triggers that fire, and the time until which all but exits of excluded members wait."""
    members, targets_u = portfolio.members, allocation.weights_u

    def beyond(threshold_u: int) -> tuple[Member, ...]:
        return tuple(
            one
            for one in members
            if abs(targets_u[one.symbol] - one.weight_u)
            > _no_trade_band_u(
                targets_u[one.symbol], statuses[one.symbol], configuration, threshold_u
            )
        )

    drifted = beyond(configuration.rebalance_threshold_u)
    slack = configuration.rebalancing.weight_bound_tolerance_u
    low, high = configuration.min_weight_u - slack, configuration.max_weight_u + slack
    # A weight at its target breaks no bound, because the rules put it there.
    outside = (
        not low <= one.weight_u <= high and one.weight_u != targets_u[one.symbol]
        for one in members
        if constraints[one.symbol].request.role is WeightRole.FUNDED
    )
    is_due = interval_slot(portfolio, configuration, at) is not None and not is_interval_done
    late = is_due and any(beyond(configuration.rebalance_interval_threshold_u))
    # An excluded member leaves at once, unless the lot rule holds it back.
    leaves = any(
        constraints[one.symbol].request.role is WeightRole.EXCLUDED
        and one.weight_u >= least_u.get(one.symbol, 0)
        for one in drifted
    )
    free_at = None
    if rebalanced_at is not None:
        free_at = rebalanced_at + timedelta(seconds=configuration.rebalance_min_spacing_s)
    is_free = free_at is None or at >= free_at
    is_outside = any(outside)
    forced = (
        (Trigger.MEMBERSHIP, bool(members) and portfolio.weighted_at is None),
        (
            Trigger.RISK,
            _is_too_volatile({one.symbol: one.weight_u for one in members}, configuration, known),
        ),
    )
    # A weight that prices carry out of its bounds counts as drift and waits like it.
    fired = (
        (Trigger.DRIFT, bool(drifted) and (is_free or leaves)),
        (Trigger.BOUND, is_outside and is_free),
        forced[0],
        (Trigger.INTERVAL, late and is_free),
        forced[1],
    )
    triggers = tuple(trigger for trigger, applies in fired if applies)
    is_forced = any(applies for _, applies in forced)
    waits = not is_free and not is_forced and (bool(drifted) or late or is_outside)
    return triggers, free_at if waits else None


def _threshold_u(configuration: Configuration, *, by_interval: bool) -> int:
    if by_interval:
        return configuration.rebalance_interval_threshold_u
    return configuration.rebalance_threshold_u


def _no_trade_band_u(
    aim_u: int, status: MemberStatus, configuration: Configuration, threshold_u: int
) -> int:
    """Allowed distance of a weight from its target: the threshold or the wider band by cost."""
    rules = configuration.rebalancing
    if not rules.cost_based_no_trade_band or status.trading_cost is None:
        return threshold_u
    wide_u = round(band(aim_u / FULL, status.trading_cost, rules.risk_aversion) * FULL)
    return max(threshold_u, wide_u)


def band(weight: float, cost: float, aversion: float) -> float:
    """Half-width of the region without trades around `weight`; all are fractions.

    Janecek-Shreve's asymptotic of Davis-Norman for a proportional `cost`.
    """
    return float((1.5 / aversion * weight**2 * (1.0 - weight) ** 2 * max(cost, 0.0)) ** (1.0 / 3.0))


def _is_too_volatile(
    weights_u: Mapping[str, int], configuration: Configuration, known: Covariance | None
) -> bool:
    limit = configuration.rebalancing.volatility_target
    if limit == 0.0 or known is None:
        return False
    now = compute_volatility(weights_u, known)
    # Prices move the volatility around its target after every change; small excess is ignored.
    return now is not None and to_millionths(now) > to_millionths(limit * _CALM)


def _action(old_u: int, new_u: int) -> str:
    if old_u == 0 or new_u == 0:
        return "enter" if old_u == 0 else "exit"
    return "increase" if new_u > old_u else "decrease"


def _cost(changes: Sequence[WeightChange], statuses: Mapping[str, MemberStatus]) -> float | None:
    total = 0.0
    for change in changes:
        cost = statuses[change.symbol].trading_cost
        if cost is None:
            return None
        total += abs(change.change_u) / FULL * cost
    return total
