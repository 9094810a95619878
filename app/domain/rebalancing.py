"""Drift, triggers and the plan: what a rebalance would change, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.domain.configuration import Configuration, WeightingMethod
from app.domain.portfolio import FULL, Member, Portfolio
from app.domain.targets import Ruling, spared, targets, volatility
from app.domain.weighting import Allocation, Claim, Role
from app.domain.weighting_methods import Basis, Covariance, appeals

__all__ = ["Ruling", "targets"]  # part of the plan, made in a module of their own
_CALM: Final = 1.05  # how far above its target volatility may be before it is a reason


class Trigger(StrEnum):
    DRIFT = "drift"  # a weight is further from its target than the threshold
    BOUND = "bound"  # a funded weight lies outside its bounds
    MEMBERSHIP = "membership"  # members changed since weights were last set
    INTERVAL = "interval"  # the interval has passed
    RISK = "risk"  # the portfolio is more volatile than its target


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one member at the moment of deciding; None where it is not known."""

    symbol: str
    is_open: bool  # the contract's status is Open
    is_halted: bool  # the market stands still: the exchange is not trading
    is_fresh: bool  # quotes and score are young enough to be acted on
    score: float | None
    z: float | None
    volatility: float | None
    trading_cost: float | None  # fraction of the traded value: fee plus half the spread
    ban: str | None = None  # the reason, where the operator wants none of it
    is_pinned: bool = False  # the operator wants it kept
    is_leaving: bool = False  # a better symbol in its place is confirmed
    doubt: str | None = None  # why its prices are not believed
    is_ending: bool = False  # its contract is open and about to end
    is_frozen: bool = False  # nobody trades it while its index moves on
    is_paused: bool = False  # the exchange has stopped trading in it for a time


@dataclass(frozen=True, slots=True)
class Shift:
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
    """What would change; no shifts when nothing calls for a rebalance."""

    shifts: tuple[Shift, ...]
    triggers: tuple[Trigger, ...]
    allocation: Allocation  # the targets, also when nothing is done
    rulings: Mapping[str, Ruling]
    turnover_u: int  # sum of the absolute changes
    cost: float | None  # fraction of equity; None if it is unknown for one of the shifts


def may_trade(score: float, member: Member, configuration: Configuration) -> bool:
    """Enter threshold for a member without weight, leave threshold for one that is traded."""
    traded = member.target_weight_u > 0
    return score >= (configuration.leave_score if traded else configuration.enter_score)


def rule(
    member: Member,
    standing: Standing,
    configuration: Configuration,
    method: WeightingMethod = WeightingMethod.SCORE_TILTED,
) -> Ruling:
    """Whether the member is funded, locked or excluded; the first rule that applies decides.

    The claim has no appeal yet: that is a matter of all members together.
    """
    score, z = standing.score, standing.z
    locked, excluded = Role.LOCKED, Role.EXCLUDED
    below = score is not None and not may_trade(score, member, configuration)
    kept = below and standing.is_pinned
    unsized = standing.volatility is None and method not in _WITHOUT_VOLATILITY
    rules = (
        (standing.is_paused, locked, "the contract is paused: the weight stays"),
        (not standing.is_open, excluded, "the contract is not open"),
        (standing.is_halted, locked, "the market is halted: the weight stays"),
        (standing.is_ending, excluded, "its delisting is near"),
        (standing.ban is not None, excluded, f"it is banned: {standing.ban}"),
        (not standing.is_fresh, locked, "its data is stale: the weight stays"),
        (
            standing.doubt is not None,
            locked,
            f"its prices are in quarantine: the weight stays ({standing.doubt})",
        ),
        (standing.is_frozen, locked, "nobody trades it: the weight stays"),
        (score is None or z is None, locked, "it has no score: the weight stays"),
        (standing.is_leaving, excluded, "its replacement is confirmed"),
        (kept, locked, "its score is below the trading threshold, but it is pinned"),
        (below, excluded, "its score is below the trading threshold"),
        (unsized, locked, "its volatility is not known: the weight stays"),
    )
    role, reason = next(
        ((role, reason) for applies, role, reason in rules if applies),
        (Role.FUNDED, "score and volatility give its share"),
    )
    return Ruling(Claim(member.symbol, role, 0.0, member.weight_u), reason)


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


def rulings(
    portfolio: Portfolio,
    standings: Mapping[str, Standing],
    configuration: Configuration,
    known: Covariance | None = None,
    method: WeightingMethod | None = None,
) -> dict[str, Ruling]:
    """A ruling for every member; `standings` holds each of them by symbol."""
    used = method or configuration.rebalancing.method
    everyone = ((one, standings[one.symbol]) for one in portfolio.members)
    ruled = {one.symbol: rule(one, found, configuration, used) for one, found in everyone}
    funded = {
        symbol: Basis(
            standings[symbol].z or 0.0, standings[symbol].volatility, configuration.score_tilt
        )
        for symbol, ruling in ruled.items()
        if ruling.claim.role is Role.FUNDED
    }
    pulls = appeals(used, funded, known)
    asked = funded if used is not WeightingMethod.FIXED else configuration.rebalancing.fixed_weights
    return ruled | {
        symbol: Ruling(
            replace(ruled[symbol].claim, appeal=pull), _GROUND[used] if symbol in asked else _UNSET
        )
        for symbol, pull in pulls.items()
    }


def plan(
    portfolio: Portfolio,
    standings: Mapping[str, Standing],
    configuration: Configuration,
    at: datetime,
    known: Covariance | None = None,
    method: WeightingMethod | None = None,
) -> Plan:
    """The change to the targets if something calls for it, else a plan without shifts.

    `portfolio` has the weights as prices have carried them. A drift of exactly the threshold does
    not call for a change. Once it fires, every member goes to its target, so that a second plan
    right after the first has no shifts. With a band by cost, drift alone moves the members that
    have left their band and as few others as add up.
    """
    ruled = rulings(portfolio, standings, configuration, known, method)
    allocation = targets(ruled, configuration, known, method)
    triggers = _triggers(portfolio, ruled, allocation, configuration, at, standings, known)
    if triggers == (Trigger.DRIFT,) and configuration.rebalancing.band_by_cost:
        allocation = _sparing(allocation, ruled, standings, configuration, known)
    reasons = {symbol: ruling.reason for symbol, ruling in ruled.items()}
    return toward(portfolio, allocation, triggers, reasons, ruled, standings)


def toward(
    portfolio: Portfolio,
    allocation: Allocation,
    triggers: tuple[Trigger, ...],
    reasons: Mapping[str, str],
    ruled: Mapping[str, Ruling],
    standings: Mapping[str, Standing],
) -> Plan:
    """The plan that takes every member to its weight of `allocation`, if there is a trigger."""
    shifts = tuple(
        Shift(member.symbol, member.weight_u, new_u, _action(member.weight_u, new_u), why)
        for member in portfolio.members
        if triggers
        for new_u, why in ((allocation.weights_u[member.symbol], reasons[member.symbol]),)
        if new_u != member.weight_u
    )
    turnover_u = sum(abs(shift.change_u) for shift in shifts)
    return Plan(shifts, triggers, allocation, ruled, turnover_u, _cost(shifts, standings))


def _sparing(
    target: Allocation,
    ruled: Mapping[str, Ruling],
    standings: Mapping[str, Standing],
    configuration: Configuration,
    known: Covariance | None,
) -> Allocation:
    """The targets without the trades that the bands by cost save, if it stays calm enough."""
    bands = {
        symbol: _allowed_u(target.weights_u[symbol], standing, configuration)
        for symbol, standing in standings.items()
    }
    low, high = configuration.min_weight_u, configuration.max_weight_u
    fewer = spared(target, ruled, bands, low, high)
    return target if _is_too_volatile(fewer.weights_u, configuration, known) else fewer


def _triggers(
    portfolio: Portfolio,
    ruled: Mapping[str, Ruling],
    allocation: Allocation,
    configuration: Configuration,
    at: datetime,
    standings: Mapping[str, Standing],
    known: Covariance | None,
) -> tuple[Trigger, ...]:
    members, targets_u = portfolio.members, allocation.weights_u
    drifted = (
        abs(targets_u[one.symbol] - one.weight_u)
        > _allowed_u(targets_u[one.symbol], standings[one.symbol], configuration)
        for one in members
    )
    slack = configuration.rebalancing.bound_tolerance_u
    low, high = configuration.min_weight_u - slack, configuration.max_weight_u + slack
    # A weight that stands at its target is where the rules put it, inside its bounds or not.
    outside = (
        not low <= one.weight_u <= high and one.weight_u != targets_u[one.symbol]
        for one in members
        if ruled[one.symbol].claim.role is Role.FUNDED
    )
    age = timedelta() if portfolio.weighted_at is None else at - portfolio.weighted_at
    fired = (
        (Trigger.DRIFT, any(drifted)),
        (Trigger.BOUND, any(outside)),
        (Trigger.MEMBERSHIP, bool(members) and portfolio.weighted_at is None),
        (Trigger.INTERVAL, age >= timedelta(seconds=configuration.rebalance_interval)),
        (
            Trigger.RISK,
            _is_too_volatile({one.symbol: one.weight_u for one in members}, configuration, known),
        ),
    )
    return tuple(trigger for trigger, applies in fired if applies)


def _allowed_u(aim_u: int, standing: Standing, configuration: Configuration) -> int:
    """How far a weight may be from its target: the threshold, or its band by cost if wider."""
    rules, least = configuration.rebalancing, configuration.rebalance_threshold_u
    if not rules.band_by_cost or standing.trading_cost is None:
        return least
    return max(least, int(band(aim_u / FULL, standing.trading_cost, rules.risk_aversion) * FULL))


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
    now = volatility(weights_u, known)
    # Prices alone move it about its target after every change: that is no reason to trade.
    return now is not None and now > limit * _CALM


def _action(old_u: int, new_u: int) -> str:
    if old_u == 0 or new_u == 0:
        return "enter" if old_u == 0 else "exit"
    return "increase" if new_u > old_u else "decrease"


def _cost(shifts: Sequence[Shift], standings: Mapping[str, Standing]) -> float | None:
    total = 0.0
    for shift in shifts:
        cost = standings[shift.symbol].trading_cost
        if cost is None:
            return None
        total += abs(shift.change_u) / FULL * cost
    return total
