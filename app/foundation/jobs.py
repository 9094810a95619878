"""Job values: kinds, states, steps and progress of durable runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

Document = Mapping[str, object]  # JSON-able: text, numbers, true, false, null, lists, objects


class JobKind(StrEnum):
    """Kinds of durable runs."""

    REBALANCE_CHECK = "rebalance_check"
    REPLACEMENT_CHECK = "replacement_check"
    CONTRACT_SYNC = "contract_sync"
    SCORING = "scoring"
    SAMPLE_DATA = "sample_data"
    BACKFILL = "backfill"
    RETENTION = "retention"
    PERFORMANCE_MARKS = "performance_marks"
    REPORT = "report"
    SIGNAL_OUTCOMES = "signal_outcomes"
    DAILY_DIGEST = "daily_digest"
    SCORE_VALIDATION = "score_validation"
    BACKTEST = "backtest"


class JobState(StrEnum):
    """States of a job; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL: Final = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


class StepState(StrEnum):
    """States of a step; a pending step of a finished job never started."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class JobError:
    """Reason of a failure: a stable code and a sentence for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class JobStep:
    name: str
    state: StepState
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class StepProgress:
    """Progress of the running step; `total` 0 means not known yet."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Job:
    """One durable run; `progress` is a fraction, 1 exactly in state done."""

    run_id: str
    kind: str
    state: JobState
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: float
    steps: tuple[JobStep, ...]
    payload: Document
    result: Document | None
    error: JobError | None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL


@dataclass(frozen=True, slots=True)
class Enqueued:
    """Run that serves the request: a new one, or the running one with the same key."""

    run_id: str
    is_new: bool


def steps_with_state(
    names: Sequence[str], recorded: Sequence[JobStep], state: JobState
) -> tuple[JobStep, ...]:
    """Returns all steps in order with their states; a running job is in the next pending one."""
    known = {step.name: step for step in recorded}
    steps = [known.get(name, JobStep(name, StepState.PENDING)) for name in names]
    if state is JobState.RUNNING:
        for place, step in enumerate(steps):
            if step.state is StepState.PENDING:
                steps[place] = JobStep(step.name, StepState.RUNNING, step.started_at)
                break
    return tuple(steps)


def progress(steps: Sequence[JobStep], state: JobState, share: StepProgress | None = None) -> float:
    """Returns the completed fraction, 0..1: whole steps, and `share` of the running one."""
    if state is JobState.DONE:
        return 1.0
    if not steps:
        return 0.0
    done = sum(step.state is StepState.DONE for step in steps)
    running = any(step.state is StepState.RUNNING for step in steps)
    part = min(share.done / share.total, 1.0) if running and share and share.total > 0 else 0.0
    # All steps done, but the end is not recorded yet: the job is not done.
    return min((done + part) / len(steps), 0.99)
