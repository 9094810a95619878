"""Keys of cached views of the members: everything that state, board and market contribute.

The present time is not part of a key, only its verdicts on ages and locks. A view must not hold
an age or the present moment; the service that shows it adds them.
"""

from app.market.domain.models import Interval
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.state_cache import PortfolioState


def portfolio_key(state: PortfolioState, context: DecisionContext) -> tuple[object, ...]:
    """Key of a view with the version of the portfolio and its booked results."""
    market = context.market
    return (
        state.revision,
        context.board,
        market.panel(Interval.DAY),
        market.panel(Interval.HOUR),
        context.controls,
        *_market_parts(state, context),
    )


def members_key(state: PortfolioState, context: DecisionContext) -> tuple[object, ...]:
    """Key of a view without version and booked results, which most commits leave as it is."""
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
        context.board,
        context.market.panel(Interval.DAY),
    )


def _market_parts(state: PortfolioState, context: DecisionContext) -> tuple[object, ...]:
    market, as_of = context.market, context.market.as_of()
    return (
        tuple(market.quote(member.symbol) for member in state.portfolio.members),
        context.is_whole,
        context.is_board_fresh,
        market.is_halted(),
        market.is_clock_safe(),
        market.status(),
        None if context.mode.refusal is None else context.mode.cause,
        as_of,
        context.at if as_of is None else None,  # then our own clock stands in for it
    )
