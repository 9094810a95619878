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
    """Ids of runs that may go.

    All runs younger than `full` stay; of those younger than `hourly` the newest of each UTC hour
    stays, of older ones the newest of each UTC day: the newest complete one where there is one.
    `protected` run ids stay in any case.
    """
    old = [run for run in runs if run.is_before(now - full)]
    newest: dict[str, str] = {}
    for run in sorted(old, key=lambda run: (not run.is_provisional, run.calculated_at, run.run_id)):
        is_hourly = not run.is_before(now - hourly)
        newest[run.calculated_at.strftime("%Y-%m-%d %H" if is_hourly else "%Y-%m-%d")] = run.run_id
    kept = {*newest.values(), *protected}
    return tuple(run.run_id for run in old if run.run_id not in kept)
