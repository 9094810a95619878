"""Frozen facts that leave a transaction after its commit; `event_codec` says how they are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.foundation.decimal_math import to_millionths
from app.foundation.jobs import JobState


def _rounded(score: float | None) -> int | None:
    return None if score is None else to_millionths(score)


class JobChange(StrEnum):
    STARTED = "started"  # also when another process has taken it up
    PROGRESS = "progress"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job has begun, has come further or has ended; `error` is a stable code."""

    job_id: str
    kind: str
    change: JobChange
    state: JobState
    step: str | None
    progress: float
    error: str | None
    occurred_at: datetime


class Topic(StrEnum):
    """What a reader of events can ask for."""

    PORTFOLIO_CHANGE = "portfolio_change"
    SCORE_UPDATE = "score_update"
    ALERT = "alert"
    SIGNAL = "signal"
    REBALANCE = "rebalance"
    JOB = "job"
    CONFIGURATION = "configuration"
    BOARD = "board"
    MODE = "mode"


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event as it is stored, before it has its number. `data` is plain JSON."""

    topic: Topic
    type: str
    subject: str | None  # the symbol it is about; None where it is about no single one
    data: Mapping[str, Any]
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class EventRecord(EventDraft):
    """A stored event; `seq` counts every committed event from 1 without a gap."""

    seq: int
