"""Processes that share one database: each says that it lives, and takes over from the dead."""

from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from app.foundation.ports import Monotonic
from app.foundation.sql.database import Database
from app.foundation.sql.replicas import Makeup, Peer, ReplicaRepository

BEAT_S: Final = 3.0
DEAD_S: Final = 15.0
API: Final = "api"  # the role that never reads the market

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
    younger than its sleep: it must not call them dead. `makeup` is what this one runs with; one
    that does not judge (`judges`) leaves the runs of the dead to others.
    """

    database: Database
    orphans: Orphans
    executor_id: str
    monotonic: Monotonic
    beat_s: float = BEAT_S
    dead_s: float = DEAD_S
    makeup: Makeup = field(default_factory=Makeup)
    judges: bool = True
    peers: tuple[Peer, ...] = field(default=(), init=False)  # at the last beat, this one included
    _awake_since: float | None = field(default=None, init=False)
    _last_beat: float = field(default=0.0, init=False)

    async def round(self) -> tuple[str, ...]:
        """Gives the executors whose runs were taken over. Raises UnavailableError."""
        awake_since, self._awake_since = self._awake_since, None
        async with self.database.write() as unit:
            await unit.get(ReplicaRepository).beat(self.executor_id, self.makeup)
            self.peers = await unit.get(ReplicaRepository).peers()
        now = self.monotonic()
        overslept = now - self._last_beat > self.dead_s / 2
        self._awake_since = now if awake_since is None or overslept else awake_since
        self._last_beat = now
        if not self.judges or now - self._awake_since < self.dead_s:
            return ()
        return await self._bury_dead()

    def living(self) -> tuple[Peer, ...]:
        """Everybody who was heard of lately."""
        return tuple(peer for peer in self.peers if peer.silent_ms < self.dead_s * 1000)

    def asking(self) -> int:
        """How many living processes may talk to the exchange, this one included."""
        others = (one for one in self.living() if one.executor_id != self.executor_id)
        return 1 + sum(one.makeup.role != API for one in others)

    def drifted(self) -> tuple[Peer, ...]:
        """Those who run with another version or other settings than this one."""
        ours = self.makeup.version, self.makeup.settings_hash
        return tuple(
            peer
            for peer in self.living()
            if peer.executor_id != self.executor_id
            and (peer.makeup.version, peer.makeup.settings_hash) != ours
        )

    def is_outdated(self) -> bool:
        """Whether somebody newer is there to read the market: then an older one leaves it alone."""
        ours = _release(self.makeup.version)
        return any(
            peer.makeup.role != API and _release(peer.makeup.version) > ours
            for peer in self.drifted()
        )

    async def leave(self) -> None:
        """Says goodbye, once nothing is carried out here any more.

        What it could not finish then belongs to nobody known, and others take it over at once.
        """
        async with self.database.write() as unit:
            await unit.get(ReplicaRepository).leave(self.executor_id)

    async def _bury_dead(self) -> tuple[str, ...]:
        for_ms = int(self.dead_s * 1000)
        # Asked in this order, or somebody who has just come would be a stranger.
        busy = await self.orphans.executors()
        async with self.database.read() as unit:
            known, silent = (
                await unit.get(ReplicaRepository).known(),
                await unit.get(ReplicaRepository).silent(for_ms),
            )
        strangers = busy - known - {self.executor_id}
        taken: list[str] = []
        for dead in (*silent, *sorted(strangers)):
            if await self.orphans.take_over(dead):
                async with self.database.write() as unit:
                    await unit.get(ReplicaRepository).bury(dead, for_ms)
            if dead in busy:
                taken.append(dead)
                _log.warning("executor_dead", executor=dead, unknown=dead in strangers)
        return tuple(taken)


def _release(version: str | None) -> tuple[int, ...]:
    """The numbers of "1.2.3+digest"; of what has none: before everything."""
    numbers = (version or "").partition("+")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdecimal())
