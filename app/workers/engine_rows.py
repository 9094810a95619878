"""Rows of the engine as jobs; its names for states are translated here."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from app.foundation.errors import Code
from app.foundation.jobs import (
    Job,
    JobError,
    JobState,
    JobStep,
    Share,
    StepState,
    outline,
    progress,
)

_STATES: Final[Mapping[str, JobState]] = {
    "DELAYED": JobState.QUEUED,
    "ENQUEUED": JobState.QUEUED,
    "PENDING": JobState.RUNNING,
    "SUCCESS": JobState.DONE,
    "ERROR": JobState.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
}
_CODES: Final = frozenset(code.value for code in Code)
_UNFORESEEN: Final = "An error that was not foreseen; its traceback stands in the log."
_GIVEN_UP: Final = "It was begun again too often without coming to an end."


def recorded_as(state: JobState) -> list[str]:
    """The engine's names of a state."""
    return [name for name, ours in _STATES.items() if ours is state]


def job_of(
    row: Any,
    names: Sequence[str],
    steps: Sequence[Mapping[str, Any]] = (),
    share: Mapping[str, Any] | None = None,
) -> Job:
    """A run as it is recorded. Times are UTC, milliseconds on PostgreSQL, seconds on SQLite."""
    state = _STATES[row.status]
    shown = outline(names, [_step(one) for one in steps if one["function_name"] in names], state)
    part = None if share is None else Share(int(share["done"]), int(share["total"]))
    output = row.output
    return Job(
        run_id=row.workflow_id,
        kind=row.name,
        state=state,
        created_at=_at(row.created_at),
        started_at=_moment(row.dequeued_at),
        finished_at=_moment(row.completed_at),
        progress=progress(shown, state, part),
        steps=shown,
        payload=_payload(row.input),
        result=output if isinstance(output, dict) else None,
        error=_failure(row, state),
    )


def _step(recorded: Mapping[str, Any]) -> JobStep:
    error = recorded["error"]
    return JobStep(
        name=recorded["function_name"],
        state=StepState.DONE if error is None else StepState.FAILED,
        started_at=_moment(recorded["started_at_epoch_ms"]),
        finished_at=_moment(recorded["completed_at_epoch_ms"]),
        error=None if error is None else _error(error),
    )


def _failure(row: Any, state: JobState) -> JobError | None:
    if row.error is not None:
        return _error(row.error)
    if state is JobState.FAILED:
        return JobError(Code.INTERNAL_ERROR.value, _GIVEN_UP)
    return None


def _error(error: Any) -> JobError:
    """Ours with its own words; of any other nothing is shown, it may hold anything."""
    code = getattr(error, "code", None)
    if code in _CODES:
        return JobError(str(code), str(error))
    return JobError(Code.INTERNAL_ERROR.value, _UNFORESEEN)


def _payload(given: Any) -> Mapping[str, object]:
    arguments = given["args"] if isinstance(given, dict) else ()
    return arguments[0] if arguments and isinstance(arguments[0], dict) else {}


def _moment(epoch_ms: int | None) -> datetime | None:
    return None if epoch_ms is None else _at(epoch_ms)


def _at(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)
