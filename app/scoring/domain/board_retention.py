"""Retention of boards: all recent ones, then one an hour, then one a day for good."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class StoredRun:
    """Stored scoring run, without its scores."""

    run_id: str
    calculated_at: datetime
    input_hash: str
    is_provisional: bool
    has_inputs: bool

    def is_before(self, moment: datetime) -> bool:
        return self.calculated_at < moment


def runs_to_delete(
    runs: Iterable[StoredRun],
    now: datetime,
    full: timedelta,
    hourly: timedelta,
    protected: Collection[str],
) -> tuple[str, ...]:
    """Returns the ids of runs beyond retention.

    Runs younger than `full` stay. Of runs younger than `hourly` the newest of each UTC hour stays,
    of older runs the newest of each UTC day; complete runs take precedence over provisional ones.
    Run ids in `protected` always stay.
    """
    old = [run for run in runs if run.is_before(now - full)]
    newest: dict[str, str] = {}
    for run in sorted(old, key=lambda run: (not run.is_provisional, run.calculated_at, run.run_id)):
        is_hourly = not run.is_before(now - hourly)
        newest[run.calculated_at.strftime("%Y-%m-%d %H" if is_hourly else "%Y-%m-%d")] = run.run_id
    retained = {*newest.values(), *protected}
    return tuple(run.run_id for run in old if run.run_id not in retained)
