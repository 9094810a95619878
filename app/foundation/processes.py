"""Registry of the processes on one database: heartbeats, and takeover of dead processes' runs."""

from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from app.foundation.ports import Monotonic
from app.foundation.sql.database import Database
from app.foundation.sql.processes import Process, ProcessProfile, ProcessRepository

HEARTBEAT_INTERVAL_S: Final = 3.0
DEAD_AFTER_S: Final = 15.0
API: Final = "api"  # role that never connects to the exchange

_log = structlog.get_logger("processes")


class OrphanedRuns(Protocol):
    """Durable runs of dead processes."""

    async def take_over(self, executor_id: str) -> bool:
        """Restarts the runs of an executor; False while some of its runs are still pending."""
        ...

    async def executors(self) -> frozenset[str]:
        """Returns every executor with unfinished runs."""
        ...


@dataclass(slots=True)
class ProcessRegistry:
    """Sends heartbeats and takes over the runs of processes that stopped sending them.

    After a suspension or a database outage, heartbeats of the others look old as well. So a
    process takes over only after `dead_after_s` of regular heartbeats of its own. `profile` states
    role, version and settings of this process; `takes_over` is False for a process that runs no
    jobs.
    """

    database: Database
    orphaned_runs: OrphanedRuns
    executor_id: str
    monotonic: Monotonic
    interval_s: float = HEARTBEAT_INTERVAL_S
    dead_after_s: float = DEAD_AFTER_S
    profile: ProcessProfile = field(default_factory=ProcessProfile)
    takes_over: bool = True
    processes: tuple[Process, ...] = field(default=(), init=False)  # of the last heartbeat
    _awake_since: float | None = field(default=None, init=False)
    _last_heartbeat: float = field(default=0.0, init=False)

    async def send_heartbeat(self) -> tuple[str, ...]:
        """Records a heartbeat; returns executors whose runs were taken over.

        Raises UnavailableError.
        """
        awake_since, self._awake_since = self._awake_since, None
        async with self.database.write() as unit:
            repository = unit.get(ProcessRepository)
            await repository.record_heartbeat(self.executor_id, self.profile)
            self.processes = await repository.list_processes()
        now = self.monotonic()
        was_suspended = now - self._last_heartbeat > self.dead_after_s / 2
        self._awake_since = now if awake_since is None or was_suspended else awake_since
        self._last_heartbeat = now
        if not self.takes_over or now - self._awake_since < self.dead_after_s:
            return ()
        return await self._take_over_dead()

    def live_processes(self) -> tuple[Process, ...]:
        """Returns the processes with a recent heartbeat."""
        limit_ms = self.dead_after_s * 1000
        return tuple(process for process in self.processes if process.silent_ms < limit_ms)

    def count_exchange_clients(self) -> int:
        """Returns how many live processes may call the exchange, this one included."""
        others = (one for one in self.live_processes() if one.executor_id != self.executor_id)
        return 1 + sum(one.profile.role != API for one in others)

    def mismatched_processes(self) -> tuple[Process, ...]:
        """Returns live processes with another version or other settings than this one."""
        own = self.profile.version, self.profile.settings_hash
        return tuple(
            process
            for process in self.live_processes()
            if process.executor_id != self.executor_id
            and (process.profile.version, process.profile.settings_hash) != own
        )

    def is_outdated(self) -> bool:
        """Returns True if a newer process can lead the feed, so that this one must not."""
        own = _release(self.profile.version)
        return any(
            process.profile.role != API and _release(process.profile.version) > own
            for process in self.mismatched_processes()
        )

    async def leave(self) -> None:
        """Deletes the heartbeat of this process once it runs nothing more.

        Others then take over its unfinished runs at once.
        """
        async with self.database.write() as unit:
            await unit.get(ProcessRepository).delete(self.executor_id)

    async def _take_over_dead(self) -> tuple[str, ...]:
        silent_for_ms = int(self.dead_after_s * 1000)
        # Executors are read first: a process that starts between the two reads is then known.
        busy = await self.orphaned_runs.executors()
        async with self.database.read() as unit:
            known, silent = (
                await unit.get(ProcessRepository).executor_ids(),
                await unit.get(ProcessRepository).silent_executors(silent_for_ms),
            )
        unknown = busy - known - {self.executor_id}
        taken_over: list[str] = []
        for dead in (*silent, *sorted(unknown)):
            if await self.orphaned_runs.take_over(dead):
                async with self.database.write() as unit:
                    await unit.get(ProcessRepository).delete_silent(dead, silent_for_ms)
            if dead in busy:
                taken_over.append(dead)
                _log.warning("executor_dead", executor=dead, unknown=dead in unknown)
        return tuple(taken_over)


def _release(version: str | None) -> tuple[int, ...]:
    """Returns the numbers of "1.2.3+digest"; an empty tuple, which sorts first, without any."""
    numbers = (version or "").partition("+")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdecimal())
