"""Weights of record beside targets and proposals: views that write nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.configuration.domain.model import WeightingMethod
from app.foundation.memoize import ViewCache
from app.market.domain.models import Interval
from app.portfolio.domain.models import FULL, Member, Portfolio
from app.portfolio.domain.rebalance_plan import constrain_members
from app.portfolio.domain.target_weights import (
    MemberConstraint,
    compute_targets,
    compute_volatility,
)
from app.portfolio.domain.weight_allocation import Allocation, Role
from app.portfolio.domain.weighting_methods import Covariance
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.state_cache import PortfolioState
from app.portfolio.services.tradeability import DataFacts, describe_data
from app.portfolio.services.view_cache import targets_key


@dataclass(frozen=True, slots=True)
class WeightLine:
    """One member's weight; the target is the one that a rebalance would set now."""

    member: Member  # with the weight of record
    marked_u: int  # that weight as prices have carried it
    target_u: int
    bound: str | None  # "minimum" or "maximum" where one binds the target
    role: Role | None  # None where data is too old to say
    reason: str

    @property
    def drift_u(self) -> int:
        return self.marked_u - self.target_u


@dataclass(frozen=True, slots=True)
class WeightsReport:
    version: int
    lines: tuple[WeightLine, ...]
    cash_u: int  # as prices have carried it
    target_cash_u: int
    min_u: int
    max_u: int
    flags: tuple[str, ...]
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class ProposedWeight:
    """One member's weight now, as prices have carried it, and by the method."""

    symbol: str
    weight_u: int
    proposed_u: int
    reason: str


@dataclass(frozen=True, slots=True)
class OptimizationResult:
    """Weights by a method; risk is annualised volatility, None where a member is not covered."""

    method: WeightingMethod
    version: int
    lines: tuple[ProposedWeight, ...]
    cash_u: int
    risk_before: float | None
    risk_after: float | None
    flags: tuple[str, ...]
    facts: DataFacts


def optimize_weights(
    portfolio: Portfolio, context: DecisionContext, method: WeightingMethod
) -> OptimizationResult:
    """Compute weights by a method; raises UnavailableError if data is too old."""
    context.require_fresh_members(portfolio)
    now, known = context.at_current_prices(portfolio), context.covariance(portfolio)
    statuses, settings = context.member_statuses(portfolio), context.configuration
    constraints = constrain_members(now, statuses, settings, known, method)
    allocation = compute_targets(constraints, settings, known, method)
    held = {member.symbol: member.weight_u for member in now.members}
    return OptimizationResult(
        method=method,
        version=portfolio.version,
        lines=tuple(
            ProposedWeight(
                symbol, weight_u, allocation.weights_u[symbol], constraints[symbol].reason
            )
            for symbol, weight_u in held.items()
        ),
        cash_u=allocation.cash_u,
        risk_before=None if known is None else compute_volatility(held, known),
        risk_after=None if known is None else compute_volatility(allocation.weights_u, known),
        flags=tuple(flag.value for flag in allocation.flags),
        facts=describe_data(context),
    )


@dataclass(frozen=True, slots=True)
class TargetWeights:
    """Target weights and their reasons; every response uses these targets."""

    allocation: Allocation
    constraints: Mapping[str, MemberConstraint]  # none where data is too old to say


def compute_target_weights(
    portfolio: Portfolio,
    context: DecisionContext,
    known: Callable[[], Covariance | None] | None = None,
) -> TargetWeights:
    """Compute the weights that a rebalance would set now; with stale data the last ones.

    `known` is the covariance of the members if the caller has it already.
    """
    if not context.is_sound(portfolio):
        return TargetWeights(_last_targets(portfolio), {})
    settings = context.configuration
    covariance = known() if known else context.covariance(portfolio)
    now = context.at_current_prices(portfolio)
    constraints = constrain_members(now, context.member_statuses(portfolio), settings, covariance)
    return TargetWeights(compute_targets(constraints, settings, covariance), constraints)


def report_weights(
    portfolio: Portfolio, context: DecisionContext, kept: TargetWeights | None = None
) -> WeightsReport:
    """Weights of record beside the targets; with stale data those of the last change.

    `target` is the result of `compute_target_weights` if the caller has it already.
    """
    settings = context.configuration
    now, target = (
        context.at_current_prices(portfolio),
        kept or compute_target_weights(portfolio, context),
    )
    constraints, allocation = target.constraints, target.allocation
    low, high = settings.min_weight_u, settings.max_weight_u
    lines = []
    for member, moved in zip(portfolio.members, now.members, strict=True):
        constraint = constraints.get(member.symbol)
        target_u = allocation.weights_u[member.symbol]
        funded = constraint is not None and constraint.request.role is Role.FUNDED
        binding = {high: "maximum", low: "minimum"}.get(target_u) if funded else None
        lines.append(
            WeightLine(
                member=member,
                marked_u=moved.weight_u,
                target_u=target_u,
                bound=binding,
                role=None if constraint is None else constraint.request.role,
                reason="market data is stale: the last targets stand"
                if constraint is None
                else constraint.reason,
            )
        )
    return WeightsReport(
        version=portfolio.version,
        lines=tuple(lines),
        cash_u=now.cash_u,
        target_cash_u=allocation.cash_u,
        min_u=low,
        max_u=high,
        flags=tuple(flag.value for flag in allocation.flags),
        facts=describe_data(context),
    )


def _last_targets(portfolio: Portfolio) -> Allocation:
    weights = {member.symbol: member.target_weight_u for member in portfolio.members}
    return Allocation(weights, FULL - sum(weights.values()), ())


def get_target_weights(
    state: PortfolioState, context: DecisionContext, views: ViewCache
) -> TargetWeights:
    """Cached target weights; booked results and the trading switch do not affect them."""

    def make() -> TargetWeights:
        return compute_target_weights(
            state.portfolio, context, lambda: _covariance(state, context, views)
        )

    return views.get("target_weights", targets_key(state, context), make)


def _covariance(
    state: PortfolioState, context: DecisionContext, views: ViewCache
) -> Covariance | None:
    """Cached covariance: the slowest input, independent of intraday prices."""
    portfolio = state.portfolio
    rests_on = (portfolio.members, context.market.panel(Interval.DAY))
    return views.get("covariance", rests_on, lambda: context.covariance(portfolio))
