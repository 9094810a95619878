"""Views of members and weights with current scores and targets, and their cache keys.

The present time is not part of a key, only its verdicts on ages and locks. A view must not hold
an age or the present moment; the service that shows it adds them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from app.configuration.domain.model import WeightingMethod
from app.foundation.decimal_math import to_millionths
from app.foundation.memoize import ViewCache
from app.market.domain.models import Interval
from app.portfolio.domain.models import FULL, Member, Portfolio
from app.portfolio.domain.rebalance_plan import constrain_members
from app.portfolio.domain.returns import BookedTotal, SinceInclusion
from app.portfolio.domain.target_weights import (
    MemberConstraint,
    compute_targets,
    compute_volatility,
)
from app.portfolio.domain.weighting import Allocation, Covariance, WeightRole
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.state_cache import PortfolioState
from app.portfolio.services.tradeability import DataFacts, check_tradeability, describe_data


def portfolio_key(state: PortfolioState, context: DecisionContext) -> tuple[object, ...]:
    """Key of a view with the version of the portfolio and its booked results."""
    market = context.market
    return (
        state.revision,
        context.complete_board,
        market.panel(Interval.DAY),
        market.panel(Interval.HOUR),
        context.controls,
        *_market_parts(state, context),
    )


def members_key(state: PortfolioState, context: DecisionContext) -> tuple[object, ...]:
    """Key of a view without version and booked results; most commits leave it unchanged."""
    return (
        *_portfolio_parts(state, context),
        context.market.panel(Interval.HOUR),
        context.controls,
        *_market_parts(state, context),
    )


def targets_key(state: PortfolioState, context: DecisionContext) -> tuple[object, ...]:
    """Key of target weights, which depend on neither the trading switch nor booked results."""
    return (
        *_portfolio_parts(state, context),
        context.controls.locks,
        *_market_parts(state, context),
    )


def _portfolio_parts(state: PortfolioState, context: DecisionContext) -> tuple[object, ...]:
    portfolio = state.portfolio
    return (
        portfolio.members,
        portfolio.cash_u,
        portfolio.weighted_at,
        portfolio.configuration_version,
        state.set_at,
        state.configuration,
        context.leaving,
        context.complete_board,
        context.market.panel(Interval.DAY),
    )


def _market_parts(state: PortfolioState, context: DecisionContext) -> tuple[object, ...]:
    market, as_of = context.market, context.market.as_of()
    return (
        tuple(market.quote(member.symbol) for member in state.portfolio.members),
        context.has_complete_board,
        context.is_board_fresh,
        market.is_halted(),
        market.is_clock_safe(),
        market.status(),
        None if context.mode.refusal is None else context.mode.cause,
        as_of,
        context.at if as_of is None else None,  # own clock in place of the exchange's
    )


@dataclass(frozen=True, slots=True)
class WeightLine:
    """One member's weight; the target is the one that a rebalance would set now."""

    member: Member  # with the recorded weight
    marked_u: int  # that weight after price drift
    target_u: int
    bound: str | None  # "minimum" or "maximum" that limits the target, or None
    role: WeightRole | None  # None with stale data
    reason: str

    @property
    def drift_u(self) -> int:
        return self.marked_u - self.target_u


@dataclass(frozen=True, slots=True)
class WeightsReport:
    version: int
    lines: tuple[WeightLine, ...]
    cash_u: int  # after price drift
    target_cash_u: int
    min_u: int
    max_u: int
    flags: tuple[str, ...]
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class WeightProposal:
    """Weight of one member after price drift and by the method."""

    symbol: str
    weight_u: int
    proposed_u: int
    reason: str


@dataclass(frozen=True, slots=True)
class OptimizationResult:
    """Weights by a method; risk is annualised volatility, None where a member is not covered."""

    method: WeightingMethod
    version: int
    lines: tuple[WeightProposal, ...]
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
            WeightProposal(
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
    constraints: Mapping[str, MemberConstraint]  # empty with stale data


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
    """Recorded weights beside the targets; with stale data the targets of the last change.

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
        funded = constraint is not None and constraint.request.role is WeightRole.FUNDED
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


Realized = Mapping[str, Decimal]
NONE_BOOKED: Final[Realized] = MappingProxyType({})
Booked = Mapping[str, BookedTotal]
NONE_SINCE_INCLUSION: Final[Booked] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MemberView:
    """Member with its current figures; None means unknown."""

    member: Member
    marked_u: int  # weight after price drift
    target_u: int  # the weight that a rebalance would set now
    score: float | None
    confidence: float | None
    replacement_priority: int | None  # 1 is the weakest
    is_tradeable: bool
    not_tradeable_reason: str | None
    figures: SinceInclusion
    realized: Decimal | None  # booked, after fees and funding; None without any
    booked: BookedTotal | None  # since inclusion; None without any
    validated_at: datetime | None  # when it was last scored
    version: int  # of the portfolio
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class PortfolioView:
    portfolio: Portfolio
    max_size: int
    members: tuple[MemberView, ...]
    facts: DataFacts


def weakest(portfolio: Portfolio, context: DecisionContext) -> tuple[str, ...]:
    """The replacement candidates, weakest first; a member without a score is not compared."""
    return by_score(portfolio, context)[: context.configuration.replacement_candidates]


def by_score(portfolio: Portfolio, context: DecisionContext) -> tuple[str, ...]:
    """Members with a score, the lowest first; of equal ones the later rank."""
    scored = [
        (to_millionths(score), -member.rank, member.symbol)
        for member in portfolio.members
        if (score := context.score(member.symbol)) is not None
    ]
    return tuple(symbol for _, _, symbol in sorted(scored))


def member_view(
    member: Member, portfolio: Portfolio, context: DecisionContext, realized: Realized = NONE_BOOKED
) -> MemberView:
    """Member views; `realized` holds the booked results by symbol id."""
    targets_u = compute_target_weights(portfolio, context).allocation.weights_u
    marked_u = _marked(portfolio, context)
    # A symbol that enters has no booked result since its inclusion.
    booked = NONE_SINCE_INCLUSION
    return _member_view(member, portfolio, context, (realized, booked), targets_u, marked_u)


def _marked(portfolio: Portfolio, context: DecisionContext) -> Mapping[str, int]:
    return {one.symbol: one.weight_u for one in context.at_current_prices(portfolio).members}


def _member_view(
    member: Member,
    portfolio: Portfolio,
    context: DecisionContext,
    results: tuple[Realized, Booked],
    targets_u: Mapping[str, int],
    marked_u: Mapping[str, int],
) -> MemberView:
    realized, booked = results
    order = weakest(portfolio, context)
    verdict = check_tradeability(member.symbol, portfolio, context)
    known = context.complete_board is not None and context.score(member.symbol) is not None
    return MemberView(
        member=member,
        marked_u=marked_u[member.symbol],
        target_u=targets_u[member.symbol],
        score=context.score(member.symbol),
        confidence=context.confidence(member.symbol),
        replacement_priority=order.index(member.symbol) + 1 if member.symbol in order else None,
        is_tradeable=verdict.trade,
        not_tradeable_reason=None if verdict.trade else verdict.reason,
        figures=context.since_inclusion(member),
        realized=realized.get(member.symbol_id),
        booked=booked.get(member.symbol_id),
        validated_at=context.complete_board.calculated_at
        if known and context.complete_board
        else None,
        version=portfolio.version,
        facts=describe_data(context),
    )


def portfolio_view(
    portfolio: Portfolio,
    context: DecisionContext,
    realized: Realized = NONE_BOOKED,
    kept: TargetWeights | None = None,
    booked: Booked = NONE_SINCE_INCLUSION,
) -> PortfolioView:
    """Weight lines; `target` is the result of `compute_target_weights` if known already."""
    targets_u = (kept or compute_target_weights(portfolio, context)).allocation.weights_u
    marked_u = _marked(portfolio, context)
    members = tuple(
        _member_view(member, portfolio, context, (realized, booked), targets_u, marked_u)
        for member in portfolio.members
    )
    most = context.configuration.max_portfolio_symbols
    return PortfolioView(portfolio, most, members, describe_data(context))
