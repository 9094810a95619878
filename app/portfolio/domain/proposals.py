"""Proposed actions, each decided once before it expires and only while it fits the portfolio."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final, Self

from app.foundation.errors import Code, ConflictError
from app.portfolio.domain.models import FULL, Portfolio
from app.portfolio.domain.rebalance_plan import MemberStatus, Plan, Trigger, plan_toward
from app.portfolio.domain.weighting import Allocation, Flag, WeightRole, round_to_total

_UNCHANGED = "prices have moved it since the plan was made"


@dataclass(frozen=True, slots=True)
class ApprovedPlan:
    """Target and initial weights of an approved plan, in micro-percent by symbol."""

    weights_u: Mapping[str, int]
    cash_u: int
    flags: tuple[Flag, ...]
    seen_u: Mapping[str, int]
    tolerance_u: int  # largest distance of weights from `seen_u`, and of targets from `weights_u`
    triggers: tuple[Trigger, ...]
    reasons: Mapping[str, str]

    @classmethod
    def of(cls, action: Mapping[str, Any]) -> Self | None:
        """Read a stored action; None if it was stored before actions held weights."""
        if "weights_u" not in action:
            return None
        return cls(
            weights_u=action["weights_u"],
            cash_u=action["cash_u"],
            flags=tuple(Flag(name) for name in action["flags"]),
            seen_u=action["seen_u"],
            tolerance_u=action["tolerance_u"],
            triggers=tuple(Trigger(name) for name in action["triggers"]),
            reasons={one["symbol"]: one["reason"] for one in action["changes"]},
        )

    def is_like(self, other: "ApprovedPlan") -> bool:
        """True if approving one plan also approves the other."""
        pairs = ((self.weights_u, other.weights_u), (self.seen_u, other.seen_u))
        return all(one.keys() == two.keys() for one, two in pairs) and all(
            abs(one[symbol] - two[symbol]) <= self.tolerance_u
            for one, two in pairs
            for symbol in one
        )


def plan_approved(
    approved: ApprovedPlan,
    marked: Portfolio,
    moment: Plan,
    statuses: Mapping[str, MemberStatus],
    least_u: Mapping[str, int] = MappingProxyType({}),
    low_u: int = 0,
) -> Plan:
    """Current plan that sets the approved weights; members without an approved change stay.

    `marked` has the weights after price drift, `moment` is the plan by the current rules.
    The drift of members that stay is settled in cash, as are changes below `least_u`.
    Raises ConflictError(plan_changed) if prices, targets or rules moved by more than the tolerance.
    Raises it too if making room leaves a change below `least_u` or a weight below `low_u`.
    """
    weights = dict(approved.weights_u)
    for member in marked.members:
        symbol, held = member.symbol, member.weight_u
        if symbol not in weights:
            raise _changed(f"{symbol} is not part of it")
        constraint, target_u = moment.constraints[symbol], moment.allocation.weights_u[symbol]
        role = constraint.request.role
        may_stay = weights[symbol] == approved.seen_u[symbol]
        apart = (
            (held - approved.seen_u[symbol], "prices have moved {} by {} since it was made"),
            (target_u - weights[symbol], "the target of {} is {} away from it now"),
        )
        for distance, text in apart:
            if abs(distance) > approved.tolerance_u:
                raise _changed(text.format(symbol, _points(distance)))
        if role is WeightRole.LOCKED and not may_stay:
            raise _changed(f"{symbol} cannot be traded now: {constraint.reason}")
        if role is WeightRole.EXCLUDED and weights[symbol] > 0:
            raise _changed(f"{symbol} may not be held: {constraint.reason}")
        if may_stay or abs(weights[symbol] - held) < least_u.get(symbol, 0):
            weights[symbol] = held
    held_u = {one.symbol: one.weight_u for one in marked.members}
    absorbed = _absorbed(weights, held_u, approved)
    _require_traded(absorbed, weights, held_u, least_u, low_u)
    weights |= absorbed
    cash_u = FULL - sum(weights.values())
    if cash_u < 0 or weights.keys() != held_u.keys():
        raise _changed("members that stay have grown and leave no room for the rest")
    allocation = Allocation(weights, cash_u, approved.flags)
    reasons = {one.symbol: approved.reasons.get(one.symbol, _UNCHANGED) for one in marked.members}
    return plan_toward(marked, allocation, approved.triggers, reasons, moment.constraints, statuses)


def _absorbed(
    weights: Mapping[str, int], held: Mapping[str, int], approved: ApprovedPlan
) -> dict[str, int]:
    """Reduced weights of the moved members if members that stay have grown beyond the cash.

    Each gives up its share, at most the tolerance.
    """
    lacking = sum(weights.values()) - FULL
    moved = sorted(name for name in weights if weights[name] not in {0, held.get(name)})
    worth = sum(weights[name] for name in moved)
    if lacking <= 0 or worth == 0:
        return {}
    shares = round_to_total([Fraction(lacking * weights[name], worth) for name in moved], lacking)
    if max(shares) > approved.tolerance_u:
        return {}
    return {name: weights[name] - share for name, share in zip(moved, shares, strict=True)}


def _require_traded(
    absorbed: Mapping[str, int],
    weights: Mapping[str, int],
    held: Mapping[str, int],
    least_u: Mapping[str, int],
    low_u: int,
) -> None:
    for symbol, weight_u in absorbed.items():
        if weight_u < low_u <= weights[symbol]:
            raise _changed(f"members that stay push {symbol} below the minimum weight")
        if 0 < abs(weight_u - held.get(symbol, 0)) < least_u.get(symbol, 0):
            raise _changed(f"members that stay leave under a lot of {symbol} to trade")


def _points(distance_u: int) -> str:
    return f"{distance_u / 1_000_000:+.2f} percentage points"


def _changed(why: str) -> ConflictError:
    return ConflictError(
        Code.PLAN_CHANGED, f"The approved plan is no longer valid: {why}. Nothing was changed."
    )


class MembershipMove(StrEnum):
    """A change of the membership."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"


class ProposalKind(StrEnum):
    REBALANCE = "rebalance"
    REPLACEMENT = "replacement"
    SIGNAL = "signal"  # the subject is the symbol that it is about


class ProposalState(StrEnum):
    OPEN = "open"
    APPROVED = "approved"  # and executed in the same transaction
    DECLINED = "declined"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"  # the portfolio or the recommendation has changed


# Allowed transitions; a state that is not named is final.
NEXT: Final[Mapping[ProposalState, frozenset[ProposalState]]] = MappingProxyType(
    {ProposalState.OPEN: frozenset(ProposalState) - {ProposalState.OPEN}}
)
WHOLE: Final = "portfolio"  # subject of a proposal that concerns no single member


@dataclass(frozen=True, slots=True)
class Decision:
    """End of a proposal: actor, time, reason and the result of an approval."""

    at: datetime
    by: str
    reason: str
    run_id: str | None = None  # of the rebalance that carried it out
    version: int | None = None  # of the portfolio afterwards


@dataclass(frozen=True, slots=True)
class Proposal:
    """Action that waits for a decision, made for one version of the portfolio."""

    proposal_id: str
    kind: ProposalKind
    subject: str  # the member that would leave; WHOLE for a rebalance
    state: ProposalState
    version: int
    reason: str
    action: Mapping[str, Any]  # to execute on approval, JSON-able
    opened_at: datetime
    expires_at: datetime
    run_id: str | None = None  # of the run that proposed it
    proposed_by: str | None = None  # actor whose signal it is; None: the service
    decision: Decision | None = None

    def at(self, now: datetime) -> "Proposal":
        """State at `now`: an open proposal past its end has expired."""
        if self.state is not ProposalState.OPEN or now < self.expires_at:
            return self
        expiry = Decision(self.expires_at, "schedule", "not decided in time")
        return self.ended(ProposalState.EXPIRED, expiry)

    def ended(self, state: ProposalState, decision: Decision) -> "Proposal":
        """Close the proposal; raises ConflictError(invalid_state_transition) if it is closed."""
        if state not in NEXT.get(self.state, frozenset()):
            raise ConflictError(
                Code.INVALID_STATE_TRANSITION,
                f"The proposal is {self.state.value} already.",
                facts={"state": self.state.value},
            )
        return replace(self, state=state, decision=decision)

    def is_same(self, other: "Proposal") -> bool:
        """True if a decision on one proposal also decides the other.

        Two rebalances must have plans within the tolerance, two swaps the same symbols.
        """
        pairs = tuple(one.action.get("new_symbol") for one in (self, other))
        return (
            (self.kind, self.subject, self.version)
            == (
                other.kind,
                other.subject,
                other.version,
            )
            and pairs[0] == pairs[1]
            and self._is_same_plan(other)
        )

    def _is_same_plan(self, other: "Proposal") -> bool:
        if self.kind is not ProposalKind.REBALANCE:
            return True
        one, two = ApprovedPlan.of(self.action), ApprovedPlan.of(other.action)
        return one is not None and two is not None and one.is_like(two)
