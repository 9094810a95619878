"""Jobs as they are shown: which step is running, how far the whole is."""

from datetime import UTC, datetime

import pytest

from app.foundation.jobs import (
    Job,
    JobError,
    JobState,
    JobStep,
    StepProgress,
    StepState,
    progress,
    steps_with_state,
)

NAMES = ("fill", "score", "save")
THEN = datetime(2026, 1, 1, tzinfo=UTC)
DONE = JobStep("fill", StepState.DONE, THEN, THEN)


def states(recorded: tuple[JobStep, ...], state: JobState) -> list[StepState]:
    return [step.state for step in steps_with_state(NAMES, recorded, state)]


def test_a_running_job_is_in_the_first_step_that_has_no_record() -> None:
    assert states((), JobState.RUNNING) == [StepState.RUNNING, *[StepState.PENDING] * 2]
    assert states((DONE,), JobState.RUNNING) == [
        StepState.DONE,
        StepState.RUNNING,
        StepState.PENDING,
    ]


def test_only_a_running_job_is_in_a_step() -> None:
    for state in set(JobState) - {JobState.RUNNING}:
        assert states((DONE,), state) == [StepState.DONE, *[StepState.PENDING] * 2]


def test_the_record_of_a_step_is_shown_as_it_is() -> None:
    failed = JobStep("score", StepState.FAILED, THEN, THEN, JobError("overloaded", "later"))
    assert steps_with_state(NAMES, (failed, DONE), JobState.FAILED) == (
        DONE,
        failed,
        JobStep("save", StepState.PENDING),
    )


def test_between_the_last_step_and_the_end_nothing_runs() -> None:
    done = tuple(JobStep(name, StepState.DONE) for name in NAMES)
    assert steps_with_state(NAMES, done, JobState.RUNNING) == done
    assert progress(done, JobState.RUNNING) == 0.99
    assert progress(done, JobState.DONE) == 1.0


@pytest.mark.parametrize(
    ("share", "part"),
    [
        (None, 0.0),
        (StepProgress(0, 0), 0.0),
        (StepProgress(1, 4), 0.25),
        (StepProgress(9, 4), 1.0),
    ],
)
def test_the_running_step_counts_by_its_share(share: StepProgress | None, part: float) -> None:
    steps = steps_with_state(NAMES, (DONE,), JobState.RUNNING)
    assert progress(steps, JobState.RUNNING, share) == pytest.approx((1 + part) / 3)


def test_a_share_of_a_step_that_does_not_run_counts_for_nothing() -> None:
    steps = steps_with_state(NAMES, (DONE,), JobState.CANCELLED)
    assert progress(steps, JobState.CANCELLED, StepProgress(1, 2)) == pytest.approx(1 / 3)


def test_a_job_without_steps_has_progress_0_or_1() -> None:
    assert progress((), JobState.RUNNING) == 0.0
    assert progress((), JobState.DONE) == 1.0


def test_three_states_are_final() -> None:
    final = {
        state
        for state in JobState
        if Job("r", "k", state, THEN, None, None, 0.0, (), {}, None, None).is_final
    }
    assert final == {JobState.DONE, JobState.FAILED, JobState.CANCELLED}
