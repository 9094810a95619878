"""Processes that share one database: each says that it lives, and takes over from the dead."""

from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from app.services.ports import Monotonic
from app.storage.database import Database

BEAT_S: Final = 3.0
DEAD_S: Final = 15.0

_log = structlog.get_logger("replicas")


class Orphans(Protocol):
    """The runs that a dead process has left."""

    async def take_over(self, executor_id: str) -> bool:
        """Begins them again; False while something of that executor is still there."""
        ...

    async def executors(self) -> frozenset[str]:
        """Every executor that something unfinished belongs to."""
        ...


@dataclass(slots=True)
class Replicas:
    """One round is a heartbeat and, once we have been awake long enough, a look at the others.

    Who was asleep itself (a stopped process, a database away) hears nothing from its peers that is
    younger than its sleep: it must not call them dead.
    """

    database: Database
    orphans: Orphans
    executor_id: str
    monotonic: Monotonic
    beat_s: float = BEAT_S
    dead_s: float = DEAD_S
    _awake_since: float | None = field(default=None, init=False)
    _last_beat: float = field(default=0.0, init=False)

    async def round(self) -> tuple[str, ...]:
        """Gives the executors whose runs were taken over. Raises UnavailableError."""
        awake_since, self._awake_since = self._awake_since, None
        async with self.database.write() as unit:
            await unit.replicas.beat(self.executor_id)
        now = self.monotonic()
        overslept = now - self._last_beat > self.dead_s / 2
        self._awake_since = now if awake_since is None or overslept else awake_since
        self._last_beat = now
        if now - self._awake_since < self.dead_s:
            return ()
        return await self._bury_dead()

    async def _bury_dead(self) -> tuple[str, ...]:
        for_ms = int(self.dead_s * 1000)
        # Asked in this order, or somebody who has just come would be a stranger.
        busy = await self.orphans.executors()
        async with self.database.read() as unit:
            known, silent = await unit.replicas.known(), await unit.replicas.silent(for_ms)
        strangers = busy - known - {self.executor_id}
        taken: list[str] = []
        for dead in (*silent, *sorted(strangers)):
            if await self.orphans.take_over(dead):
                async with self.database.write() as unit:
                    await unit.replicas.bury(dead, for_ms)
            if dead in busy:
                taken.append(dead)
                _log.warning("executor_dead", executor=dead, unknown=dead in strangers)
        return tuple(taken)
