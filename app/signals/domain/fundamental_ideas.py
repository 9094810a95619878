"""The built-in fundamental source: what is extreme among all symbols of a board."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from statistics import median
from types import MappingProxyType
from typing import Final

from app.foundation.decimal_math import to_significant
from app.scoring.domain.board import Board, Card
from app.signals.domain.models import Direction
from app.signals.domain.sources import Idea, Seen

FUNDAMENTAL: Final = "fundamental"
LEAST_NAMES: Final = 15  # among fewer nothing is extreme
_MAD: Final = 1.4826  # of the standard deviation of a normal variable
_HALF_STRONG: Final = 3.0  # robust deviations from the median: strength one half


@dataclass(frozen=True, slots=True)
class Extreme:
    """A factor far from its median speaks against what is high, and for what is low."""

    factor: str
    is_of_highs_only: bool = False


RULES: Final[Mapping[str, Extreme]] = MappingProxyType(
    {
        "funding_extreme": Extreme("funding_rate"),
        "open_interest_surge": Extreme("open_interest_change", is_of_highs_only=True),
        "volume_regime": Extreme("volume_growth"),
    }
)


def fundamental_ideas(seen: Seen) -> list[Idea]:
    """Each rule once a day for a symbol; as sure as the symbol's score is."""
    return [idea for name, rule in RULES.items() for idea in _ideas(name, rule, seen.board)]


def _ideas(name: str, rule: Extreme, board: Board) -> list[Idea]:
    at = board.as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    known = {
        card.symbol: raw for card in board.cards if (raw := _raw(card, rule.factor)) is not None
    }
    if len(known) < LEAST_NAMES:
        return []
    middle = median(known.values())
    spread = _MAD * median(abs(raw - middle) for raw in known.values())
    if spread <= 0.0:
        return []
    ideas = []
    for symbol, raw in known.items():
        card, deviation = board.card(symbol), (raw - middle) / spread
        if card is None or card.confidence is None or (rule.is_of_highs_only and deviation < 0.0):
            continue
        ideas.append(
            Idea(
                symbol=symbol,
                rule=name,
                at=at,
                direction=Direction.SELL if deviation > 0.0 else Direction.BUY,
                strength=abs(deviation) / (abs(deviation) + _HALF_STRONG),
                confidence=card.confidence.level,
                figures={rule.factor: raw, "median": middle, "deviation": deviation},
            )
        )
    return ideas


def _raw(card: Card, factor: str) -> float | None:
    """Rounded: where all are equal there is no spread, and no side of the median."""
    raw = next((one.raw for one in card.factors if one.name == factor), None)
    return float(to_significant(raw)) if raw is not None and isfinite(raw) else None
