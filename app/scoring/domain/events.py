"""Events that scoring publishes."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from app.foundation.decimal_math import to_millionths
from app.foundation.events import EventKind, EventTopic
from app.scoring.domain.board import Board


@dataclass(frozen=True, slots=True)
class ScoreChanged:
    """A symbol's score differs from the previous board; None is "unavailable"."""

    run_id: str
    symbol: str
    old_score: float | None
    new_score: float | None
    rank: int | None
    calculated_at: datetime

    @property
    def change(self) -> float | None:
        """New minus old; None unless both are known."""
        if self.old_score is None or self.new_score is None:
            return None
        return self.new_score - self.old_score


def score_changes(before: Board | None, after: Board) -> tuple[ScoreChanged, ...]:
    """Returns changed scores from `before` to `after`, by symbol; without `before` all scores."""
    old = {} if before is None else {card.symbol: card.composite for card in before.cards}
    new = {card.symbol: card for card in after.cards}
    old_rounded = {symbol: _rounded(score) for symbol, score in old.items()}
    new_rounded = {card.symbol: _rounded(card.composite) for card in after.cards}
    return tuple(
        ScoreChanged(
            run_id=after.run_id,
            symbol=symbol,
            old_score=old.get(symbol),
            new_score=new[symbol].composite if symbol in new else None,
            rank=new[symbol].rank if symbol in new else None,
            calculated_at=after.calculated_at,
        )
        for symbol in sorted(old.keys() | new.keys())
        if old_rounded.get(symbol) != new_rounded.get(symbol)
    )


def _rounded(score: float | None) -> int | None:
    return None if score is None else to_millionths(score)


@dataclass(frozen=True, slots=True)
class ScoresUpdated:
    """A scoring run was saved."""

    run_id: str
    as_of: datetime
    scored: int
    unavailable: int
    duration_s: float
    calculated_at: datetime
    changes: tuple[ScoreChanged, ...] = ()
    is_provisional: bool = False  # no decision uses the board, and `changes` is empty


def _changes_then_run(event: ScoresUpdated) -> tuple[object, ...]:
    """Events in order: the score changes first, then the run."""
    return (*event.changes, replace(event, changes=()))


EVENTS: Final = (
    EventKind(
        ScoresUpdated,
        "scores_updated",
        EventTopic.SCORING_RUN,
        time="calculated_at",
        split=_changes_then_run,
    ),
    EventKind(ScoreChanged, "score_changed", EventTopic.SCORE_UPDATE, "calculated_at", "symbol"),
)
