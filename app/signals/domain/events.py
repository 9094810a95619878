"""Events that signals publish."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.foundation.events import EventKind, EventTopic


@dataclass(frozen=True, slots=True)
class SignalChanged:
    """New or processed signal; `evaluation` is None without an evaluation."""

    signal_id: str
    source: str
    type: str
    symbol: str | None
    direction: str
    state: str
    evaluation: str | None
    score: float | None
    reason: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class SignalOutcomesBooked:
    """Numbers of recorded outcomes: above the median, not above it, or unknown."""

    outperformed: int
    underperformed: int
    unknown: int
    occurred_at: datetime


EVENTS: Final = (EventKind(SignalChanged, "signal_changed", EventTopic.SIGNAL, subject="symbol"),)
