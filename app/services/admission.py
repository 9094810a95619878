"""Who may come in: a symbol of the newest board that passed the whole funnel and has a score."""

from app.domain.board import CardStatus
from app.domain.errors import Code, RefusedError
from app.services.grounds import Grounds


def require_candidate(symbol: str, grounds: Grounds) -> None:
    """Eligible and scored; how high the score is decides over the weight, not over membership.

    Raises RefusedError(symbol_not_tradable) that names the failed rule or the missing input,
    UnavailableError without a board to decide on.
    """
    card = grounds.require_board().card(symbol)
    if card is not None and card.status is CardStatus.SCORED:
        return
    why = "it is not on the newest board" if card is None else str(card.detail or card.reason)
    raise RefusedError(
        Code.SYMBOL_NOT_TRADABLE,
        f"{symbol} is no candidate: {why}.",
        facts={"reason": why},
    )
