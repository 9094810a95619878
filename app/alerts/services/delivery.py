"""The courier: delivers what the outbox holds, in order, and tries again what failed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from app.alerts.domain.notifications import (
    MAX_ATTEMPTS,
    MINUTE,
    Channel,
    ChannelKind,
    Delivery,
    remaining_quota,
    retry_delay_s,
)
from app.alerts.services.monitor import unheard
from app.alerts.services.notifier import Notifiers
from app.alerts.services.outbox import Outbox
from app.alerts.storage.notifications import NotificationRepository
from app.configuration.domain.sections import NotificationSettings
from app.foundation.clock import SharedClock, agreed
from app.foundation.errors import ServiceError
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock
from app.foundation.sql.database import Database
from app.foundation.sql.unit_of_work import UnitOfWork

STEP_S: Final = 1.0
_BATCH: Final = 200
# Noted as delivered so often; what a crash repeats is no more than that.
_NOTE: Final = timedelta(seconds=1)
# No delivery of a batch begins later: its claim must outlast the time-out of the last one.
_LATEST: Final = timedelta(seconds=20)
_log = structlog.get_logger("notifications")


@dataclass(slots=True)
class NotificationDispatcher:
    """Several may work at once: a cursor and claims in the database keep them apart.

    `rounded` is told of each round.

    `dice` gives numbers in 0..1. A crash between a delivery and its record repeats it with the
    same event id.
    """

    database: Database
    clock: Clock
    dice: Callable[[], float]
    notifiers: Notifiers
    metrics: Metrics
    rules: Callable[[], NotificationSettings] = NotificationSettings
    rounded: Callable[[], Awaitable[None]] = unheard
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    shared: SharedClock | None = None  # None: this process is the only one
    _busy: set[str] = field(default_factory=set)

    async def run(self, beat: Callable[[], None]) -> None:
        """For ever; a receiver that is slow holds up nobody but itself."""
        async with asyncio.TaskGroup() as group:
            while True:
                for channel in await self.collect():
                    if channel.enabled and channel.id not in self._busy:
                        self._busy.add(channel.id)
                        group.create_task(self._drain_alone(channel))
                beat()
                await self.rounded()
                await self.sleep(STEP_S)

    async def collect(self) -> tuple[Channel, ...]:
        """Notices of everything committed since the last time; all channels."""
        made = self.database, self.clock, self.metrics, self.rules, self.shared
        return await Outbox(*made).collect()

    async def drain(self, channel: Channel) -> None:
        """Delivers what is due over one channel, the oldest first; a failure ends it for now."""
        while True:
            async with self.database.write() as unit:
                claimed = await self._claim(unit, channel)
            if not claimed or not await self._delivered(channel, claimed):
                return

    async def _drain_alone(self, channel: Channel) -> None:
        try:
            await self.drain(channel)
        finally:
            self._busy.discard(channel.id)

    async def _claim(self, unit: UnitOfWork, channel: Channel) -> tuple[Delivery, ...]:
        """A program gets everything in order; people what is critical first, and so many."""
        at, log = await agreed(unit, self.shared, self.clock), unit.get(NotificationRepository)
        if channel.kind is ChannelKind.WEBHOOK:
            return await log.claim(channel.id, at, _BATCH)
        left, ordinary = remaining_quota(
            await log.delivered_since(channel.id, at - MINUTE), self.rules()
        )
        grave = await log.claim(channel.id, at, critical=True) if left else ()
        return grave or (await log.claim(channel.id, at, critical=False) if ordinary else ())

    async def _delivered(self, channel: Channel, claimed: tuple[Delivery, ...]) -> bool:
        """Whether all of it arrived."""
        begun = noted = self.clock()
        done: list[tuple[Delivery, datetime]] = []
        left = list(claimed)
        try:
            async with self.notifiers[channel.kind].line(channel) as tell:
                while left and self.clock() - begun < _LATEST:
                    await tell(left[0])
                    done.append((left.pop(0), self.clock()))
                    if self.clock() - noted >= _NOTE:
                        await self._note(channel, done)
                        noted, done = self.clock(), []
        except ServiceError as error:
            await self._failed(channel, left[0], error, (done, left[1:]))
            return False
        await self._note(channel, done, left)
        return True

    async def _note(
        self,
        channel: Channel,
        done: list[tuple[Delivery, datetime]],
        left: list[Delivery] | None = None,
    ) -> None:
        async with self.database.write() as unit:
            ahead = self.clock() - await agreed(unit, self.shared, self.clock)
            await unit.get(NotificationRepository).delivered(_stamped(done, ahead))
            await unit.get(NotificationRepository).release(left or [])
        self.metrics.notifications.labels(channel.kind.value, "delivered").inc(len(done))

    async def _failed(
        self,
        channel: Channel,
        delivery: Delivery,
        error: ServiceError,
        around: tuple[list[tuple[Delivery, datetime]], list[Delivery]],
    ) -> None:
        """Noted together with what arrived before it; what stood behind it waits with it."""
        attempts = delivery.attempts + 1
        pause = timedelta(seconds=retry_delay_s(attempts, self.dice()))
        done, behind = around
        async with self.database.write() as unit:
            now = await agreed(unit, self.shared, self.clock)
            again = None if attempts >= MAX_ATTEMPTS else now + pause
            await unit.get(NotificationRepository).delivered(_stamped(done, self.clock() - now))
            await unit.get(NotificationRepository).release(behind)
            await unit.get(NotificationRepository).failed(
                delivery, f"{error.code}: {error.detail}", again
            )
        outcome = "dead" if again is None else "failed"
        self.metrics.notifications.labels(channel.kind.value, "delivered").inc(len(done))
        self.metrics.notifications.labels(channel.kind.value, outcome).inc()
        _log.warning(
            "notification_failed", channel=channel.id, attempts=attempts, cause=str(error.code)
        )


def _stamped(
    done: list[tuple[Delivery, datetime]], ahead: timedelta
) -> list[tuple[Delivery, datetime]]:
    """In the time that all couriers agree on, which a clock that is so far ahead is not."""
    return [(delivery, at - ahead) for delivery, at in done]
