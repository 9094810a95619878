"""Ticks that must happen once, however many processes tick: one durable run per slot of time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from app.domain.errors import Code, UnavailableError
from app.domain.jobs import JobKind, JobState
from app.services.ports import Clock, Jobs

_CODES: Final = frozenset(code.value for code in Code)


@dataclass(slots=True)
class SlottedTick:
    """The slots of `interval_s` seconds are counted from 1970, so that every process agrees.

    All processes ask for the same run, which is named after kind and slot, and so it is begun
    once. One that fails is begun again under the number of its attempt. A slot that begins while
    the run of an earlier one goes on is passed over.
    """

    kind: JobKind
    interval_s: Callable[[], float]
    jobs: Jobs
    clock: Clock
    _slot: datetime | None = field(default=None, init=False)
    _attempt: int = field(default=1, init=False)

    async def run(self) -> None:
        """The run of the present slot, up to its end. Raises UnavailableError if it failed."""
        slot = self._present()
        if slot != self._slot:
            self._slot, self._attempt = slot, 1
        name = f"{self.kind.value}:{slot:%Y-%m-%dT%H:%M:%SZ}:{self._attempt}"
        begun = await self.jobs.enqueue(
            self.kind.value,
            {"scheduled_at": slot.isoformat(), "attempt": self._attempt},
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
        """Seconds until the next slot; none when that has come, whatever the interval was."""
        now, slot = self.clock(), self._present()
        if self._slot is None or slot > self._slot:
            return 0.0
        return max(0.0, slot.timestamp() + self.interval_s() - now.timestamp())

    def _present(self) -> datetime:
        seconds = self.interval_s()
        return datetime.fromtimestamp(self.clock().timestamp() // seconds * seconds, UTC)
