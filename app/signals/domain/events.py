"""Events that signals publish."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.foundation.events import EventKind, Topic


@dataclass(frozen=True, slots=True)
class SignalChanged:
    """A signal was taken up or has left the queue; `evaluation` is None where nobody judged it."""

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
    """What came of so many signals is on record: beat the median, did not, or is not known."""

    beat: int
    missed: int
    unknown: int
    occurred_at: datetime


EVENTS: Final = (EventKind(SignalChanged, "signal_changed", Topic.SIGNAL, subject="symbol"),)
