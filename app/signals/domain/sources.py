"""What a source of signals may look at, what it says, and which of that is worth a signal."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np

from app.configuration.domain.signal_rules import SignalRules
from app.foundation.decimal_math import all_to_millionths, is_above, to_millionths
from app.market.domain.models import Floats
from app.market.domain.panel import Panel, until
from app.market.domain.segments import UnbrokenPanel
from app.scoring.domain.board import Board
from app.signals.domain.models import Claim, Direction

LONGEST_NAME: Final = 64  # of a source, as over HTTP


@dataclass(frozen=True, slots=True)
class Seen:
    """The market as a source may see it; `hourly` holds closed bars only, None before the fill.

    Bars before a redenomination or a long halt are not there: the others may be differenced.
    """

    board: Board
    hourly: Panel | None
    rules: SignalRules


@dataclass(frozen=True, slots=True)
class Idea:
    """What a source says of a symbol; rule and moment name it, so that it is said once."""

    symbol: str
    rule: str
    at: datetime  # that it rests on: the close of a bar, or a day
    direction: Direction
    strength: float  # 0..1
    confidence: float  # 0..1
    figures: Mapping[str, float] = field(default_factory=dict)

    def is_worth_it(self, rules: SignalRules) -> bool:
        """Whether it is above the thresholds of the settings."""
        return not (
            is_above(rules.source_strength, self.strength)
            or is_above(rules.source_confidence, self.confidence)
        )

    @property
    def moment(self) -> str:
        return self.at.strftime("%Y-%m-%dT%H:%MZ")

    @property
    def key(self) -> str:
        """Names it at its source, also after a restart."""
        return f"{self.symbol}:{self.rule}:{self.moment}"

    def claim(self, source: str) -> Claim:
        """As a signal of `source`. The same idea is the same claim, whenever it comes up."""
        data: dict[str, Any] = {"rule": self.rule, "at": self.moment, **self.figures}
        return Claim(
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
class Readings:
    """One rule on all symbols of a panel at its last bar, (N,); NaN where it has nothing to say."""

    side: Floats  # +1 up, -1 down, 0 neither
    strength: Floats
    confidence: Floats
    figures: Mapping[str, Floats]


Rule = Callable[[UnbrokenPanel], Readings | None]  # None: the panel is too short for it


def worth_it(readings: Readings, rules: SignalRules) -> Floats:
    """(N,) the side where the reading is above the thresholds, else 0."""
    strong = all_to_millionths(readings.strength) >= to_millionths(rules.source_strength)
    sure = all_to_millionths(readings.confidence) >= to_millionths(rules.source_confidence)
    return np.where(strong & sure, readings.side, 0.0)


def begun(
    name: str, rule: Rule, panel: UnbrokenPanel, rules: SignalRules, at: datetime
) -> list[Idea]:
    """Ideas of the last bar that were none one bar before: what goes on is said once."""
    now, before = rule(panel), rule(until(panel, -1))
    if now is None:
        return []
    sides = worth_it(now, rules)
    if before is not None:
        sides = np.where(sides == worth_it(before, rules), 0.0, sides)
    return [
        Idea(
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


def chosen(ideas: Iterable[Idea], board: Board, rules: SignalRules) -> list[Idea]:
    """Those above the thresholds about symbols that are scored, the strongest first."""
    worth = [
        one
        for one in ideas
        if one.is_worth_it(rules)
        and (card := board.card(one.symbol)) is not None
        and card.composite is not None
    ]
    return sorted(worth, key=lambda one: (-to_millionths(one.strength), one.symbol, one.rule))
