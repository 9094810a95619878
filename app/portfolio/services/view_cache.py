"""Keys of cached views of the members: everything that state, board and market contribute.

The present time is not part of a key, only its verdicts on ages and locks. A view must not hold
an age or the present moment; the service that shows it adds them.
"""

from app.market.domain.models import Interval
from app.portfolio.services.decision_context import Grounds
from app.portfolio.services.state_cache import PortfolioState


def portfolio_key(state: PortfolioState, grounds: Grounds) -> tuple[object, ...]:
    """Key of a view with the version of the portfolio and its booked results."""
    market = grounds.market
    return (
        state.revision,
        grounds.board,
        market.panel(Interval.DAY),
        market.panel(Interval.HOUR),
        grounds.controls,
        *_market_parts(state, grounds),
    )


def members_key(state: PortfolioState, grounds: Grounds) -> tuple[object, ...]:
    """Key of a view without version and booked results, which most commits leave as it is."""
    return (
        *_portfolio_parts(state, grounds),
        grounds.market.panel(Interval.HOUR),
        grounds.controls,
        *_market_parts(state, grounds),
    )


def targets_key(state: PortfolioState, grounds: Grounds) -> tuple[object, ...]:
    """Key of target weights, which depend on neither the trading switch nor booked results."""
    return (
        *_portfolio_parts(state, grounds),
        grounds.controls.locks,
        *_market_parts(state, grounds),
    )


def _portfolio_parts(state: PortfolioState, grounds: Grounds) -> tuple[object, ...]:
    portfolio = state.portfolio
    return (
        portfolio.members,
        portfolio.cash_u,
        portfolio.weighted_at,
        portfolio.configuration_version,
        state.set_at,
        state.configuration,
        grounds.leaving,
        grounds.board,
        grounds.market.panel(Interval.DAY),
    )


def _market_parts(state: PortfolioState, grounds: Grounds) -> tuple[object, ...]:
    market, as_of = grounds.market, grounds.market.as_of()
    return (
        tuple(market.quote(member.symbol) for member in state.portfolio.members),
        grounds.is_whole,
        grounds.is_board_fresh,
        market.is_halted(),
        market.is_clock_safe(),
        market.status(),
        None if grounds.mode.refusal is None else grounds.mode.cause,
        as_of,
        grounds.at if as_of is None else None,  # then our own clock stands in for it
    )
