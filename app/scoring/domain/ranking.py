"""A board in the order of its composite or of one family."""

from dataclasses import dataclass
from enum import StrEnum

from app.configuration.domain.sections import Family
from app.foundation.decimal_math import to_millionths
from app.scoring.domain.board import Board, Card
from app.scoring.domain.engine import NOT_ELIGIBLE


class AlgorithmType(StrEnum):
    """What a ranking goes by."""

    COMPOSITE = "COMPOSITE"
    TECHNICAL = "TECHNICAL"
    FUNDAMENTAL = "FUNDAMENTAL"
    MARKET_STRUCTURE = "MARKET_STRUCTURE"
    RISK = "RISK"

    @property
    def family(self) -> Family | None:
        """None for the composite."""
        return None if self is AlgorithmType.COMPOSITE else Family(self.value.lower())


@dataclass(frozen=True, slots=True)
class Ranked:
    """A card and its place in the order asked for; None where it has no such score."""

    rank: int | None
    card: Card


def ranked(board: Board, algorithm: AlgorithmType, *, eligible_only: bool) -> tuple[Ranked, ...]:
    """Best first, ties by symbol; then the cards without that score by symbol."""
    cards = [card for card in board.cards if not (eligible_only and card.reason == NOT_ELIGIBLE)]
    family = algorithm.family
    if family is None:
        return tuple(Ranked(card.rank, card) for card in cards)
    known = [(score, card) for card in cards if (score := card.families.get(family)) is not None]
    best = sorted(known, key=lambda one: (-to_millionths(one[0]), one[1].symbol))
    rest = sorted(
        (c for c in cards if c.families.get(family) is None), key=lambda card: card.symbol
    )
    return (
        *(Ranked(place, card) for place, (_, card) in enumerate(best, start=1)),
        *(Ranked(None, card) for card in rest),
    )
