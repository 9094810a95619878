"""The portfolio as it is shown: each member with its score, figures and status of the moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from app.foundation.decimal_math import to_millionths
from app.portfolio.domain.models import Member, Portfolio
from app.portfolio.domain.returns import SinceInclusion
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.target_weights import TargetWeights, compute_target_weights
from app.portfolio.services.tradeability import DataFacts, check_tradeability, describe_data

Realized = Mapping[str, Decimal]
NONE_BOOKED: Final[Realized] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member and what is known of it now; None is not known."""

    member: Member
    marked_u: int  # its weight as prices have carried it
    target_u: int  # the weight that a rebalance would set now
    score: float | None
    confidence: float | None
    replacement_priority: int | None  # 1 is the weakest
    is_tradeable: bool
    not_tradeable_reason: str | None
    figures: SinceInclusion
    realized: Decimal | None  # booked, after fees and funding; None where nothing was
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
    """`realized` are the booked results by symbol id, as the trades know them."""
    targets_u = compute_target_weights(portfolio, context).allocation.weights_u
    marked_u = _marked(portfolio, context)
    return _member_view(member, portfolio, context, realized, targets_u, marked_u)


def _marked(portfolio: Portfolio, context: DecisionContext) -> Mapping[str, int]:
    return {one.symbol: one.weight_u for one in context.at_current_prices(portfolio).members}


def _member_view(
    member: Member,
    portfolio: Portfolio,
    context: DecisionContext,
    realized: Realized,
    targets_u: Mapping[str, int],
    marked_u: Mapping[str, int],
) -> MemberView:
    order = weakest(portfolio, context)
    verdict = check_tradeability(member.symbol, portfolio, context)
    known = context.board is not None and context.score(member.symbol) is not None
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
        validated_at=context.board.calculated_at if known and context.board else None,
        version=portfolio.version,
        facts=describe_data(context),
    )


def portfolio_view(
    portfolio: Portfolio,
    context: DecisionContext,
    realized: Realized = NONE_BOOKED,
    kept: TargetWeights | None = None,
) -> PortfolioView:
    """`target` is the result of `compute_target_weights` if the caller has it already."""
    targets_u = (kept or compute_target_weights(portfolio, context)).allocation.weights_u
    marked_u = _marked(portfolio, context)
    members = tuple(
        _member_view(member, portfolio, context, realized, targets_u, marked_u)
        for member in portfolio.members
    )
    most = context.configuration.max_portfolio_symbols
    return PortfolioView(portfolio, most, members, describe_data(context))
