"""Leader election of the market feed; the leader runs the tasks that exist once per database."""

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

CHECK_INTERVAL_S: Final = 1.0  # upper bound; a hint shortens the wait
PUBLISH_S: Final = 2.0
FEED: Final = "feed"
_log = structlog.get_logger("feed")


class Publisher(Protocol):
    """Writes the market of the leader for the followers."""

    async def publish(self) -> bool: ...


class Follower(Protocol):
    """Reads the market of the leader."""

    async def refresh(self) -> bool: ...


class LeaderRequests(Protocol):
    """Requests of the followers to the leader."""

    async def answer(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sharing:
    """Exchange of market data and requests between processes on one database."""

    publisher: Publisher
    follower: Follower
    requests: LeaderRequests


@dataclass(slots=True)
class FeedLeaderTask:
    """Acquires and renews the feed lease; follows the leader meanwhile.

    `begin` starts the tasks of the leader; `end` returns when they have stopped. `sharing` is None
    on a database that cannot be shared. `may_own` is checked before each attempt to get the lease.
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
    _is_leader: bool = field(default=False, init=False)
    _published: float = field(default=float("-inf"), init=False)

    def wake(self) -> None:
        """Starts the next round now instead of up to a second later."""
        self._hint.set()

    async def run(self, beat: Heartbeat) -> None:
        try:
            while True:
                self._hint.clear()
                try:
                    await self._run_round()
                    beat()
                except ServiceError as error:
                    _log.warning(
                        "feed_round_failed", cause=str(error.code), is_leader=self._is_leader
                    )
                if self._is_leader and self.lease.epoch is None:
                    await self._step_down()
                await self._pause()
        finally:
            await self._step_down()
            with suppress(ServiceError):  # without the database the lease expires
                await self.lease.release()

    async def _run_round(self) -> None:
        if self._is_leader:
            await self.lease.renew()
            if self.lease.epoch is not None:
                await self._share()
            return
        if not self.may_own():
            await self.lease.read()  # so that every process knows the leader
        elif await self.lease.acquire() is not None:
            if self.sharing is not None:
                with suppress(ServiceError):  # the last market of the previous leader
                    await self.sharing.follower.refresh()
            self._is_leader = True
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

    async def _step_down(self) -> None:
        """Stops the tasks of the leader, even in the middle of their work."""
        if self._is_leader:
            await self.end()  # a cancellation in between calls it again
            self._is_leader = False

    async def _pause(self) -> None:
        # A leader ignores hints: requests of the followers can wait for its next round.
        with suppress(TimeoutError):
            async with asyncio.timeout(self.check_interval_s):
                if self._is_leader:
                    await asyncio.sleep(self.check_interval_s)
                else:
                    await self._hint.wait()
