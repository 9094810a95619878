"""Scheduled tasks that run once per slot of time, however many processes schedule them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from app.foundation.errors import Code, UnavailableError
from app.foundation.jobs import JobKind, JobState
from app.foundation.ports import Clock, Jobs, Monotonic

_CODES: Final = frozenset(code.value for code in Code)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_REMEMBERED: Final = 2_000  # slots: more than a day has of any interval from a minute up


@dataclass(slots=True)
class OncePerSlotTask:
    """Runs once per slot of `interval_s` seconds; slots are counted from 1970 in every process.

    All processes ask for the same run, which is named after kind and slot, and so it is begun
    once. One that fails is begun again under the number of its attempt. A slot that begins while
    the run of an earlier one goes on is passed over.

    The wall clock names a slot, `monotonic` says when the next one is due. A wall clock that is
    set therefore moves the next run by half an interval at most, and a slot that comes a second
    time has a run of its own.
    """

    kind: JobKind
    interval_s: Callable[[], float]
    jobs: Jobs
    clock: Clock
    monotonic: Monotonic
    _slot: datetime | None = field(default=None, init=False)
    _first: datetime | None = field(default=None, init=False)  # slot of this process
    _interval_us: int = field(default=0, init=False)
    _begun_us: int = field(default=0, init=False)  # monotonic time when the slot began
    _rounds: dict[datetime, int] = field(default_factory=dict, init=False)
    _attempt: int = field(default=1, init=False)

    async def run(self) -> None:
        """Complete the run of the present slot. Raises UnavailableError if it failed."""
        slot = self._enter()
        again = self._rounds[slot]
        label = f"{slot:%Y-%m-%dT%H:%M:%SZ}" + (f".{again}" if again > 1 else "")
        name = f"{self.kind.value}:{label}:{self._attempt}"
        # A second round of a slot is another moment for all who store what happened at it.
        at = slot + (again - 1) * _MICROSECOND
        begun = await self.jobs.enqueue(
            self.kind.value,
            {"scheduled_at": at.isoformat(), "attempt": self._attempt},
            run_id=name,
            key=self.kind.value,
        )
        job = await self.jobs.finished(begun.run_id)
        if job.state is JobState.FAILED and begun.run_id == name:
            self._attempt += 1
            cause = job.error.code if job.error else ""
            raise UnavailableError(
                Code(cause) if cause in _CODES else Code.INTERNAL_ERROR, f"{name} failed: {cause}"
            )

    def left_s(self) -> float:
        """Seconds until the next slot is due; none when it is, whatever the interval was."""
        if self._slot is None:
            return 0.0
        interval, wall, mono = self._now()
        if interval != self._interval_us:
            passed = wall % interval
            return 0.0 if mono - passed > self._begun_us else (interval - passed) / 1e6
        # The beginning of a slot that is nearest to one interval after the last beginning.
        due = self._begun_us + interval
        off = (due + wall - mono) % interval
        due += interval - off if 2 * off > interval else -off
        return max(0, due - mono) / 1e6

    def _enter(self) -> datetime:
        """The slot to run: the present one when it is due, else the last one again."""
        if self._slot is not None and self.left_s() > 0:
            return self._slot
        interval, wall, mono = self._now()
        slot = _EPOCH + (wall - wall % interval) * _MICROSECOND
        self._first = self._first or slot
        # What began before this process may have been run by an earlier one.
        known = self._rounds.pop(slot, 1 if slot < self._first else 0)
        self._rounds[slot] = known + 1
        while len(self._rounds) > _REMEMBERED:
            del self._rounds[next(iter(self._rounds))]
        self._slot, self._interval_us, self._attempt = slot, interval, 1
        self._begun_us = mono - wall % interval
        return slot

    def _now(self) -> tuple[int, int, int]:
        """Interval, wall clock and monotonic clock in whole microseconds."""
        wall = (self.clock() - _EPOCH) // _MICROSECOND
        return round(self.interval_s() * 1e6), wall, round(self.monotonic() * 1e6)
