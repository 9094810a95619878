"""The clock of a tape, and what is due when."""

from datetime import UTC, datetime, timedelta

from app.configuration.domain.model import IntervalSettings
from app.research.domain.recording import RETRY_S, Schedule, Step, TapeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_time_stands_still_between_entries_and_never_goes_back() -> None:
    clock = TapeClock(START, zero=50.0, mono=50.0)
    clock.move(52.5)
    clock.move(51.0)
    assert clock.monotonic() == 52.5
    assert clock.now() == START + timedelta(seconds=2.5)


def test_nothing_is_done_before_the_first_fill_and_that_is_tried_again() -> None:
    schedule = Schedule(IntervalSettings())
    assert schedule.due(10.0) == (Step.FILL, 10.0)
    schedule.began(Step.FILL, 10.0)
    assert schedule.due(11.0) == (Step.FILL, 10.0 + RETRY_S)


def test_after_the_fill_the_board_comes_first_and_everything_else_in_its_time() -> None:
    schedule = Schedule(IntervalSettings(), board_every_s=120.0)
    schedule.began(Step.FILL, 0.0)
    schedule.filled(100.0)
    seen: list[tuple[Step, float]] = []
    now = 100.0
    while now < 400.0:
        step, at = schedule.due(now)
        now = max(now, at)
        seen.append((step, now))
        schedule.began(step, now)
    assert seen[0] == (Step.SCORING, 100.0)
    for step, every_s in (
        (Step.MARKET, 60.0), (Step.CANDLES, 30.0), (Step.BOOKS, 15.0),
    ):  # fmt: skip
        assert [at for one, at in seen if one is step][:3] == [
            100.0 + every_s * turn for turn in (1, 2, 3)
        ]
    assert [at for one, at in seen if one is Step.SCORING] == [100.0, 220.0, 340.0]
    # At one moment the quotes come before the board that is made of them.
    assert seen.index((Step.MARKET, 220.0)) < seen.index((Step.SCORING, 220.0))
