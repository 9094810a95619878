"""Ranks a board by its composite or by one family."""

from dataclasses import dataclass
from enum import StrEnum

from app.configuration.domain.sections import Family
from app.foundation.decimal_math import to_millionths
from app.scoring.domain.board import Board, Card
from app.scoring.domain.engine import NOT_ELIGIBLE


class AlgorithmType(StrEnum):
    """Score that a ranking sorts by."""

    COMPOSITE = "COMPOSITE"
    TECHNICAL = "TECHNICAL"
    FUNDAMENTAL = "FUNDAMENTAL"
    MARKET_STRUCTURE = "MARKET_STRUCTURE"
    RISK = "RISK"

    @property
    def family(self) -> Family | None:
        """Family of the ranking; None for the composite."""
        return None if self is AlgorithmType.COMPOSITE else Family(self.value.lower())


@dataclass(frozen=True, slots=True)
class RankedCard:
    """A card and its rank in the requested order; None without that score."""

    rank: int | None
    card: Card


def rank_cards(
    board: Board, algorithm: AlgorithmType, *, eligible_only: bool
) -> tuple[RankedCard, ...]:
    """Returns the cards best first, ties by symbol; then cards without that score by symbol."""
    cards = [card for card in board.cards if not (eligible_only and card.reason == NOT_ELIGIBLE)]
    family = algorithm.family
    if family is None:
        return tuple(RankedCard(card.rank, card) for card in cards)
    known = [(score, card) for card in cards if (score := card.families.get(family)) is not None]
    best = sorted(known, key=lambda one: (-to_millionths(one[0]), one[1].symbol))
    rest = sorted(
        (c for c in cards if c.families.get(family) is None), key=lambda card: card.symbol
    )
    return (
        *(RankedCard(place, card) for place, (_, card) in enumerate(best, start=1)),
        *(RankedCard(None, card) for card in rest),
    )
