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
from app.market.domain.panel import Panel, truncate
from app.market.domain.segments import ContiguousPanel
from app.scoring.domain.board import Board, Card
from app.signals.domain.models import Direction, SignalClaim

MAX_NAME_LENGTH: Final = 64  # length of a source's name, as over HTTP


@dataclass(frozen=True, slots=True)
class SourceInput:
    """Market data for signal sources; `hourly` has closed bars only, None before the fill.

    Bars before a redenomination or a long halt are absent, so differences of the others are valid.
    """

    board: Board
    hourly: Panel | None
    rules: SignalSettings


@dataclass(frozen=True, slots=True)
class GeneratedSignal:
    """Signal of a source; symbol, rule and time identify it, so that it is sent once."""

    symbol: str
    rule: str
    at: datetime  # close of the underlying bar, or a day
    direction: Direction
    strength: float  # 0..1
    confidence: float  # 0..1
    figures: Mapping[str, float] = field(default_factory=dict)

    def is_significant(self, rules: SignalSettings) -> bool:
        """True if strength and confidence reach the configured thresholds."""
        return not (
            is_above(rules.source_strength, self.strength)
            or is_above(rules.source_confidence, self.confidence)
        )

    @property
    def moment(self) -> str:
        return self.at.strftime("%Y-%m-%dT%H:%MZ")

    @property
    def key(self) -> str:
        """Id at the source, stable across restarts."""
        return f"{self.symbol}:{self.rule}:{self.moment}"

    def claim(self, source: str) -> SignalClaim:
        """Returns the claim by `source`; the same signal gives the same claim at any time."""
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
    confident = all_to_millionths(readings.confidence) >= to_millionths(rules.source_confidence)
    return np.where(strong & confident, readings.side, 0.0)


def find_new_signals(
    name: str, rule: Rule, panel: ContiguousPanel, rules: SignalSettings, at: datetime
) -> list[GeneratedSignal]:
    """Finds signals of the last bar that were absent one bar before."""
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
    signals: Iterable[GeneratedSignal], board: Board, rules: SignalSettings
) -> list[GeneratedSignal]:
    """Selects significant signals about scored symbols, the strongest first."""
    significant = [
        signal
        for signal in signals
        if signal.is_significant(rules)
        and (card := board.card(signal.symbol)) is not None
        and card.composite is not None
    ]
    return sorted(significant, key=lambda one: (-to_millionths(one.strength), one.symbol, one.rule))


FUNDAMENTAL: Final = "fundamental"
MIN_SYMBOLS: Final = 15  # minimum number of symbols to call one extreme
_MAD: Final = 1.4826  # median absolute deviations per standard deviation of a normal variable
_HALF_STRENGTH_DEVIATION: Final = 3.0  # robust deviations from the median with strength one half


@dataclass(frozen=True, slots=True)
class ExtremeRule:
    """Rule: sell symbols far above the median of a factor, buy symbols far below it."""

    factor: str
    is_high_only: bool = False


RULES: Final[Mapping[str, ExtremeRule]] = MappingProxyType(
    {
        "funding_extreme": ExtremeRule("funding_rate"),
        "open_interest_surge": ExtremeRule("open_interest_change", is_high_only=True),
        "volume_regime": ExtremeRule("volume_growth"),
    }
)


def find_fundamental_signals(source_input: SourceInput) -> list[GeneratedSignal]:
    """Finds extremes, each rule once a day and symbol; confidence is that of the score."""
    board = source_input.board
    return [
        signal for name, rule in RULES.items() for signal in _extreme_signals(name, rule, board)
    ]


def _extreme_signals(name: str, rule: ExtremeRule, board: Board) -> list[GeneratedSignal]:
    at = board.as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    known = {
        card.symbol: raw for card in board.cards if (raw := _raw(card, rule.factor)) is not None
    }
    if len(known) < MIN_SYMBOLS:
        return []
    middle = median(known.values())
    spread = _MAD * median(abs(raw - middle) for raw in known.values())
    if spread <= 0.0:
        return []
    signals = []
    for symbol, raw in known.items():
        card, deviation = board.card(symbol), (raw - middle) / spread
        if card is None or card.confidence is None or (rule.is_high_only and deviation < 0.0):
            continue
        signals.append(
            GeneratedSignal(
                symbol=symbol,
                rule=name,
                at=at,
                direction=Direction.SELL if deviation > 0.0 else Direction.BUY,
                strength=abs(deviation) / (abs(deviation) + _HALF_STRENGTH_DEVIATION),
                confidence=card.confidence.level,
                figures={rule.factor: raw, "median": middle, "deviation": deviation},
            )
        )
    return signals


def _raw(card: Card, factor: str) -> float | None:
    """Raw value, rounded so that equal values have no deviation from the median."""
    raw = next((one.raw for one in card.factors if one.name == factor), None)
    return float(to_significant(raw)) if raw is not None and isfinite(raw) else None
