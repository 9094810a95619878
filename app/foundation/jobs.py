"""Jobs: what runs durably beside the requests, as it is shown; nothing here runs anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

Document = Mapping[str, object]  # JSON-able: text, numbers, true, false, null, lists, objects


class JobKind(StrEnum):
    """What can be run durably."""

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


class JobState(StrEnum):
    """The life of a job; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL: Final = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


class StepState(StrEnum):
    """A step is done once; a pending one of a finished job was never begun."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class JobError:
    """Why it failed: a stable code and a sentence for people."""

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
class Share:
    """How far the running step is; `total` 0 stands for not known yet."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Job:
    """One durable run; `progress` is a fraction, 1 exactly when it is done."""

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
    """The run that answers the request: a new one, or the one that is doing the same already."""

    run_id: str
    is_new: bool


def outline(
    names: Sequence[str], recorded: Sequence[JobStep], state: JobState
) -> tuple[JobStep, ...]:
    """The steps `names` in order, with what is `recorded` of them; a running job is in the next."""
    known = {step.name: step for step in recorded}
    steps = [known.get(name, JobStep(name, StepState.PENDING)) for name in names]
    if state is JobState.RUNNING:
        for place, step in enumerate(steps):
            if step.state is StepState.PENDING:
                steps[place] = JobStep(step.name, StepState.RUNNING, step.started_at)
                break
    return tuple(steps)


def progress(steps: Sequence[JobStep], state: JobState, share: Share | None = None) -> float:
    """The part that is done, 0..1: whole steps, and `share` of the one that is running."""
    if state is JobState.DONE:
        return 1.0
    if not steps:
        return 0.0
    done = sum(step.state is StepState.DONE for step in steps)
    running = any(step.state is StepState.RUNNING for step in steps)
    part = min(share.done / share.total, 1.0) if running and share and share.total > 0 else 0.0
    # All steps done and the end not recorded yet is not the end.
    return min((done + part) / len(steps), 0.99)
