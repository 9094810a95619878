"""Who may come in: a symbol of the newest board that passed the whole funnel and has a score."""

from typing import Final

from app.foundation.errors import Code, RefusedError
from app.market.domain.eligibility import RULES
from app.portfolio.services.decision_context import Grounds
from app.scoring.domain.board import CardStatus

_ASKED: Final = {rule.name: rule.title for rule in RULES}


def require_candidate(symbol: str, grounds: Grounds) -> None:
    """Eligible and scored; how high the score is decides over the weight, not over membership.

    Raises RefusedError(symbol_not_tradable) that names the failed rule or the missing input,
    UnavailableError without a board to decide on.
    """
    card = grounds.require_board().card(symbol)
    if card is not None and card.status is CardStatus.SCORED:
        return
    why = "it is not on the newest board" if card is None else str(card.detail or card.reason)
    said = f'this does not hold: "{_ASKED[why]}"' if why in _ASKED else why
    raise RefusedError(
        Code.SYMBOL_NOT_TRADABLE,
        f"{symbol} is no candidate: {said}.",
        facts={"reason": why},
    )
