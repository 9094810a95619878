"""Leader or follower of the market feed; the leader runs the tasks of one process alone."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from app.foundation.errors import ServiceError
from app.foundation.ports import Monotonic
from app.market.services.feed_leader import LeaderLease
from app.workers.supervisor import Heartbeat

CHECK_INTERVAL_S: Final = 1.0  # the truth; a hint only makes it sooner
PUBLISH_S: Final = 2.0
FEED: Final = "feed"
_log = structlog.get_logger("feed")


class Publisher(Protocol):
    """Writes the owner's market for the others."""

    async def publish(self) -> bool: ...


class Follower(Protocol):
    """Reads it."""

    async def refresh(self) -> bool: ...


class LeaderRequests(Protocol):
    """Requests of the followers to the leader."""

    async def answer(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sharing:
    """Coordination of several processes on one database."""

    publisher: Publisher
    follower: Follower
    requests: LeaderRequests


@dataclass(slots=True)
class FeedDuty:
    """`begin` starts the tasks of the owner, `end` returns when they have stopped.

    `sharing` is None where no other process can use the database. `may_own` is asked before each
    try to get the lease.
    """

    lease: LeaderLease
    monotonic: Monotonic
    begin: Callable[[], None]
    end: Callable[[], Awaitable[None]]
    sharing: Sharing | None = None
    may_own: Callable[[], bool] = lambda: True
    check_interval_s: float = CHECK_INTERVAL_S
    publish_s: float = PUBLISH_S
    _hint: asyncio.Event = field(default_factory=asyncio.Event)
    _owning: bool = field(default=False, init=False)
    _published: float = field(default=float("-inf"), init=False)

    def nudge(self) -> None:
        """There may be something new: look now instead of a second later."""
        self._hint.set()

    async def run(self, beat: Heartbeat) -> None:
        try:
            while True:
                self._hint.clear()
                try:
                    await self._round()
                    beat()
                except ServiceError as error:
                    _log.warning("feed_round_missed", cause=str(error.code), owning=self._owning)
                if self._owning and self.lease.epoch is None:
                    await self._lay_down()
                await self._pause()
        finally:
            await self._lay_down()
            with suppress(ServiceError):  # without the database it runs out by itself
                await self.lease.release()

    async def _round(self) -> None:
        if self._owning:
            await self.lease.renew()
            if self.lease.epoch is not None:
                await self._share()
            return
        if not self.may_own():
            await self.lease.read()  # so that every process can name the leader
        elif await self.lease.acquire() is not None:
            if self.sharing is not None:
                with suppress(ServiceError):  # the last word of the owner before us
                    await self.sharing.follower.refresh()
            self._owning = True
            self.begin()
            return
        if self.sharing is not None:
            await self.sharing.follower.refresh()

    async def _share(self) -> None:
        if self.sharing is None:
            return
        await self.sharing.requests.answer()
        if self.monotonic() - self._published >= self.publish_s:
            self._published = self.monotonic()
            await self.sharing.publisher.publish()

    async def _lay_down(self) -> None:
        """Nothing of the owner's goes on; what it was in the middle of is cut off."""
        if self._owning:
            await self.end()  # anew where it was cut off in the midst of that
            self._owning = False

    async def _pause(self) -> None:
        # An owner has nothing to hear of the others that could not wait.
        with suppress(TimeoutError):
            async with asyncio.timeout(self.check_interval_s):
                await (asyncio.sleep(self.check_interval_s) if self._owning else self._hint.wait())
