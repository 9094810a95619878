"""The clock of a tape, and what is due when."""

from datetime import UTC, datetime, timedelta

from app.configuration.domain.model import IntervalSettings
from app.research.domain.recording import RETRY_S, RecordingClock, Schedule, SessionStep

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_time_stands_still_between_entries_and_never_goes_back() -> None:
    clock = RecordingClock(START, zero=50.0, mono=50.0)
    clock.move(52.5)
    clock.move(51.0)
    assert clock.monotonic() == 52.5
    assert clock.now() == START + timedelta(seconds=2.5)


def test_nothing_is_done_before_the_first_fill_and_that_is_tried_again() -> None:
    schedule = Schedule(IntervalSettings())
    assert schedule.next_due(10.0) == (SessionStep.FILL, 10.0)
    schedule.start_step(SessionStep.FILL, 10.0)
    assert schedule.next_due(11.0) == (SessionStep.FILL, 10.0 + RETRY_S)


def test_after_the_fill_the_board_comes_first_and_everything_else_in_its_time() -> None:
    schedule = Schedule(IntervalSettings(), board_interval_s=120.0)
    schedule.start_step(SessionStep.FILL, 0.0)
    schedule.finish_fill(100.0)
    seen: list[tuple[SessionStep, float]] = []
    now = 100.0
    while now < 400.0:
        step, at = schedule.next_due(now)
        now = max(now, at)
        seen.append((step, now))
        schedule.start_step(step, now)
    assert seen[0] == (SessionStep.SCORING, 100.0)
    for step, every_s in (
        (SessionStep.MARKET, 60.0), (SessionStep.CANDLES, 30.0), (SessionStep.BOOKS, 15.0),
    ):  # fmt: skip
        assert [at for one, at in seen if one is step][:3] == [
            100.0 + every_s * turn for turn in (1, 2, 3)
        ]
    assert [at for one, at in seen if one is SessionStep.SCORING] == [100.0, 220.0, 340.0]
    # At one moment the quotes come before the board that is made of them.
    assert seen.index((SessionStep.MARKET, 220.0)) < seen.index((SessionStep.SCORING, 220.0))
