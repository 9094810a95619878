"""Thinning of stored boards: hours, days, provisional ones and protected ones."""

from datetime import UTC, datetime, timedelta

from app.scoring.domain.board_retention import StoredRun, runs_to_delete

NOW = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def run(name: str, before: timedelta, *, is_provisional: bool = False) -> StoredRun:
    return StoredRun(name, NOW - before, f"hash of {name}", is_provisional, has_inputs=True)


def gone(*runs: StoredRun, protected: frozenset[str] = frozenset()) -> set[str]:
    return set(runs_to_delete(runs, NOW, 7 * DAY, 90 * DAY, protected))


def test_recent_boards_stay() -> None:
    assert gone(*(run(str(n), timedelta(minutes=5 * n)) for n in range(50))) == set()


def test_of_an_old_hour_the_newest_complete_board_stays() -> None:
    hour = 8 * DAY + timedelta(minutes=30)  # at 12:00
    runs = (
        run("first", hour - timedelta(minutes=1)),
        run("second", hour - timedelta(minutes=30)),
        run("unsure", hour - timedelta(minutes=40), is_provisional=True),
        run("next hour", hour - timedelta(minutes=61)),
    )
    assert gone(*runs) == {"first", "unsure"}
    assert gone(runs[2], runs[3]) == set(), "a provisional one is better than none"


def test_of_an_older_day_the_newest_board_stays_for_good() -> None:
    runs = [run(str(n), 100 * DAY + timedelta(hours=n)) for n in range(12)]
    assert gone(*runs) == {str(n) for n in range(1, 12)}
    assert gone(run("old", 5_000 * DAY)) == set()


def test_a_protected_board_stays_beside_the_newest() -> None:
    runs = [run(str(n), 100 * DAY + timedelta(hours=n)) for n in range(3)]
    assert gone(*runs, protected=frozenset({"2"})) == {"1"}
