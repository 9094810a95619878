"""A desk whose board shows the agents something of every symbol."""

from collections.abc import Mapping
from dataclasses import replace

from app.signals.domain.models import Direction, SignalClaim
from tests.support.signal_features import card
from tests.support.trading_desk import SYMBOLS, Desk

BEST = SYMBOLS[0]


def informed(
    desk: Desk,
    about: str = BEST,
    scores: Mapping[str, float | None] | None = None,
    **figures: float | None,
) -> None:
    """A new board; `figures` of one symbol are other than those of the rest.

    What a figure of the others is falls with the quality of the symbol, so that there is a median.
    """
    desk.score(scores or {})
    board = desk.boards.board
    assert board is not None
    cards = []
    for at, one in enumerate(board.cards):
        known: dict[str, float | None] = {"impact": 1.0 + at}
        if one.symbol == about:
            known |= figures
        volatility = known.pop("volatility", 0.6 + 0.01 * at)
        told = card(one.symbol, volatility, **known)
        cards.append(replace(told, rank=one.rank, composite=one.composite, z=one.z))
    desk.boards.board = replace(board, cards=tuple(cards))


def claim(symbol: str | None = BEST, **changed: object) -> SignalClaim:
    given: dict[str, object] = {
        "source": "desk",
        "type": "momentum",
        "strength": 0.8,
        "confidence": 0.9,
        "symbol": symbol,
        "direction": Direction.BUY,
    }
    return SignalClaim(**{**given, **changed})  # type: ignore[arg-type]  # named by the test
