"""Input and output of signal sources, and the selection of significant signals."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from statistics import median
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from app.configuration.domain.sections import SignalSettings
from app.foundation.decimal_math import all_to_millionths, is_above, to_millionths, to_significant
from app.market.domain.models import Floats
from app.market.domain.panel import ContiguousPanel, Panel, truncate
from app.scoring.domain.board import Board, Card
from app.signals.domain.models import Direction, SignalClaim

LONGEST_NAME: Final = 64  # length of a source's name, as over HTTP


@dataclass(frozen=True, slots=True)
class SourceInput:
    """Market data for signal sources; `hourly` holds closed bars only, None before the fill.

    Bars before a redenomination or a long halt are absent: the others are safe to difference.
    """

    board: Board
    hourly: Panel | None
    rules: SignalSettings


@dataclass(frozen=True, slots=True)
class GeneratedSignal:
    """Statement of a source about a symbol; rule and time identify it, to send it once."""

    symbol: str
    rule: str
    at: datetime  # close of the underlying bar, or a day
    direction: Direction
    strength: float  # 0..1
    confidence: float  # 0..1
    figures: Mapping[str, float] = field(default_factory=dict)

    def is_worth_it(self, rules: SignalSettings) -> bool:
        """Whether it exceeds the configured thresholds."""
        return not (
            is_above(rules.source_strength, self.strength)
            or is_above(rules.source_confidence, self.confidence)
        )

    @property
    def moment(self) -> str:
        return self.at.strftime("%Y-%m-%dT%H:%MZ")

    @property
    def key(self) -> str:
        """Id at its source, stable across restarts."""
        return f"{self.symbol}:{self.rule}:{self.moment}"

    def claim(self, source: str) -> SignalClaim:
        """Claim by `source`; the same signal gives the same claim at any time."""
        data: dict[str, Any] = {"rule": self.rule, "at": self.moment, **self.figures}
        return SignalClaim(
            source=source,
            type=self.rule,
            strength=self.strength,
            confidence=self.confidence,
            symbol=self.symbol,
            direction=self.direction,
            data=data,
            source_id=self.key,
        )


@dataclass(frozen=True, slots=True, eq=False)
class RuleReadings:
    """One rule on all symbols of a panel at its last bar, (N,); NaN without a value."""

    side: Floats  # +1 up, -1 down, 0 neither
    strength: Floats
    confidence: Floats
    figures: Mapping[str, Floats]


Rule = Callable[[ContiguousPanel], RuleReadings | None]  # None: the panel is too short


def significant_sides(readings: RuleReadings, rules: SignalSettings) -> Floats:
    """(N,) the side where the reading exceeds the thresholds, else 0."""
    strong = all_to_millionths(readings.strength) >= to_millionths(rules.source_strength)
    sure = all_to_millionths(readings.confidence) >= to_millionths(rules.source_confidence)
    return np.where(strong & sure, readings.side, 0.0)


def find_new_signals(
    name: str, rule: Rule, panel: ContiguousPanel, rules: SignalSettings, at: datetime
) -> list[GeneratedSignal]:
    """Signals of the last bar that were absent one bar before: a lasting one is sent once."""
    now, before = rule(panel), rule(truncate(panel, -1))
    if now is None:
        return []
    sides = significant_sides(now, rules)
    if before is not None:
        sides = np.where(sides == significant_sides(before, rules), 0.0, sides)
    return [
        GeneratedSignal(
            symbol=panel.symbols[column],
            rule=name,
            at=at,
            direction=Direction.BUY if sides[column] > 0.0 else Direction.SELL,
            strength=float(now.strength[column]),
            confidence=float(now.confidence[column]),
            figures={key: float(values[column]) for key, values in now.figures.items()},
        )
        for column in np.flatnonzero(sides)
    ]


def select_signals(
    ideas: Iterable[GeneratedSignal], board: Board, rules: SignalSettings
) -> list[GeneratedSignal]:
    """Significant signals about scored symbols, the strongest first."""
    worth = [
        one
        for one in ideas
        if one.is_worth_it(rules)
        and (card := board.card(one.symbol)) is not None
        and card.composite is not None
    ]
    return sorted(worth, key=lambda one: (-to_millionths(one.strength), one.symbol, one.rule))


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


def find_fundamental_signals(seen: SourceInput) -> list[GeneratedSignal]:
    """Each rule once a day for a symbol; as sure as the symbol's score is."""
    return [idea for name, rule in RULES.items() for idea in _ideas(name, rule, seen.board)]


def _ideas(name: str, rule: Extreme, board: Board) -> list[GeneratedSignal]:
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
            GeneratedSignal(
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
