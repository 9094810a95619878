"""What the views of the members rest on: everything that committed state, board and market say."""

from app.foundation.memoize import Basis
from app.market.domain.models import Interval
from app.portfolio.services.decision_context import Grounds
from app.portfolio.services.state_cache import Committed


def basis(state: Committed, grounds: Grounds) -> Basis:
    """Of views of the members alone, which ask the market for no other symbol.

    Time itself is not in it, only what it has made of the ages and of the locks; so whatever a
    view says of age or of the present moment must be put in by whoever shows it.
    """
    market = grounds.market
    return Basis(
        things=(state, grounds.board, market.panel(Interval.DAY), market.panel(Interval.HOUR)),
        facts=(grounds.controls, *_of_market(state, grounds)),
    )


def held_basis(state: Committed, grounds: Grounds) -> Basis:
    """Of views of the members that show neither the version nor what was booked.

    Most of what is committed moves nothing else.
    """
    portfolio, market = state.portfolio, grounds.market
    return Basis(
        things=(
            portfolio.members,
            state.set_at,
            state.configuration,
            grounds.board,
            market.panel(Interval.DAY),
            market.panel(Interval.HOUR),
        ),
        facts=(
            portfolio.cash_u,
            portfolio.weighted_at,
            portfolio.configuration_version,
            grounds.leaving,
            grounds.controls,
            *_of_market(state, grounds),
        ),
    )


def target_basis(state: Committed, grounds: Grounds) -> Basis:
    """Of the target weights, which know neither the switch nor what was booked."""
    portfolio = state.portfolio
    return Basis(
        things=(
            portfolio.members,
            state.set_at,
            state.configuration,
            grounds.board,
            grounds.market.panel(Interval.DAY),
        ),
        facts=(
            portfolio.cash_u,
            portfolio.weighted_at,
            portfolio.configuration_version,
            grounds.leaving,
            grounds.controls.locks,
            *_of_market(state, grounds),
        ),
    )


def _of_market(state: Committed, grounds: Grounds) -> tuple[object, ...]:
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
