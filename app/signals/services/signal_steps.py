"""Which change of the membership a signal asks for now, by the rules that hold for everybody."""

from app.foundation.sql.unit_of_work import UnitOfWork
from app.portfolio.domain.candidate_selection import refuse
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.replacement import Block, Leaver, propose
from app.portfolio.services.decision_context import Grounds
from app.portfolio.services.member_views import weakest
from app.portfolio.services.replacement import noises
from app.portfolio.services.replacement_candidates import contender, correlation_of
from app.signals.domain.models import Direction, Signal
from app.signals.domain.signal_effect import Move, Step

# A signal stands in the place of having been found better on several boards.
_WAIVED = frozenset({Block.UNCONFIRMED})


async def step_of(
    signal: Signal, portfolio: Portfolio, grounds: Grounds, unit: UnitOfWork
) -> Step | str:
    """The change, or why there is none."""
    symbol = signal.claim.symbol
    members = tuple(member.symbol for member in portfolio.members)
    if symbol is None or signal.claim.direction is Direction.NEUTRAL:
        return "it asks for nothing"
    if signal.claim.direction is Direction.SELL:
        if symbol not in members:
            return f"{symbol} is not a member"
        if grounds.controls.is_pinned(symbol):
            return f"{symbol} is pinned"
        return Step(Move.REMOVE, symbol)
    if symbol in members:
        return f"{symbol} is a member already"
    if len(members) < grounds.configuration.max_portfolio_symbols:
        refused = _refused(symbol, members, grounds)
        return Step(Move.ADD, symbol) if refused is None else refused
    return await _swap(symbol, portfolio, grounds, unit)


async def _swap(
    symbol: str, portfolio: Portfolio, grounds: Grounds, unit: UnitOfWork
) -> Step | str:
    """In the place of the weakest member, if it is better by more than noise and cost."""
    names = [
        one
        for one in weakest(portfolio, grounds)
        if not grounds.controls.is_pinned(one) and not grounds.is_paused(one)
    ]
    if not names:
        return "the portfolio is full, and nobody may be replaced"
    old = names[0]
    held = {member.symbol: grounds.at - member.included_at for member in portfolio.members}
    others = tuple(one for one in held if one != old)
    refused = _refused(symbol, others, grounds)
    if refused is not None:
        return refused
    rules = grounds.configuration.replacement
    noise = noises((old, symbol), grounds)
    last = await unit.replacements.last_swap()
    found = propose(
        Leaver(contender(old, grounds), held[old], None, is_pinned=False),
        contender(symbol, grounds),
        noise,
        None,
        None if last is None else grounds.at - last,
        rules,
    )
    blocks = [block.value for block in found.blocked_by if block not in _WAIVED]
    if blocks:
        return f"{symbol} does not replace {old}: {', '.join(blocks)}"
    return Step(Move.REPLACE, symbol, old)


def _refused(symbol: str, others: tuple[str, ...], grounds: Grounds) -> str | None:
    days = grounds.configuration.correlation.addition_days
    refused = refuse(
        grounds.candidate(symbol),
        others,
        correlation_of((symbol, *others), grounds, days),
        grounds.configuration,
        map(grounds.sector, others),
    )
    return None if refused is None else f"{symbol} may not come in: {refused.reason.value}"
