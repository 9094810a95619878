"""The courier: makes notices of events, holds back what is too much, and delivers in order."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from app.domain.errors import ServiceError
from app.domain.notification import (
    HOUR,
    MOST_TRIES,
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    Notice,
    NoticeKind,
    Told,
    admitted,
    digest,
    digest_due,
    notice_of,
    pause_s,
)
from app.services.notifications import Notifiers
from app.services.ports import Clock
from app.storage.database import Database
from app.storage.unit_of_work import UnitOfWork
from app.telemetry.metrics import Metrics

STEP_S: Final = 1.0
_PAGE: Final = 500
_log = structlog.get_logger("notifications")


@dataclass(slots=True)
class Courier:
    """Several may work at once: a cursor and claims in the database keep them apart.

    `dice` gives numbers in 0..1. A notice and the fact that its event was read are committed
    together; a crash between a delivery and its record repeats it with the same event id.
    """

    database: Database
    clock: Clock
    dice: Callable[[], float]
    notifiers: Notifiers
    metrics: Metrics
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
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
                await self.sleep(STEP_S)

    async def collect(self) -> tuple[Channel, ...]:
        """Notices of everything committed since the last time; all channels."""
        while True:
            async with self.database.read() as unit:
                channels = await unit.notifications.channels()
            if await self.database.run(lambda unit, known=channels: self._page(unit, known)):  # type: ignore[misc]  # bound now
                return channels

    async def drain(self, channel: Channel) -> None:
        """Delivers what is due over one channel, the oldest first; a failure ends it for now."""
        while True:
            at = self.clock()
            async with self.database.write() as unit:
                delivery = await unit.notifications.claim(channel.id, at)
            if delivery is None or not await self._delivered(channel, delivery):
                return

    async def _drain_alone(self, channel: Channel) -> None:
        try:
            await self.drain(channel)
        finally:
            self._busy.discard(channel.id)

    async def _page(self, unit: UnitOfWork, channels: tuple[Channel, ...]) -> bool:
        """One page of events; True when there are no more."""
        position = await unit.notifications.position()
        records = await unit.events.after(position, _PAGE)
        notices = [notice for record in records if (notice := notice_of(record)) is not None]
        for channel in channels:
            if channel.enabled:
                await self._told(
                    unit, channel, [one for one in notices if one.kind in channel.kinds]
                )
        if records:
            await unit.notifications.seen(records[-1].seq)
        return len(records) < _PAGE

    async def _told(self, unit: UnitOfWork, channel: Channel, notices: list[Notice]) -> None:
        at = self.clock()
        told: list[Told] = []
        limited = channel.kind is ChannelKind.APPRISE  # a program wants everything
        if limited and notices:
            told = [*await unit.notifications.told_since(channel.id, at - HOUR)]
        for notice in notices:
            passes = not limited or admitted(notice, told, at)
            state = DeliveryState.PENDING if passes else DeliveryState.HELD
            if await unit.notifications.add(channel.id, notice, at, state) and passes:
                told.append(Told(notice.kind, notice.key, at))
        if limited:
            await self._digest(unit, channel)

    async def _digest(self, unit: UnitOfWork, channel: Channel) -> None:
        at, held = self.clock(), await unit.notifications.held(channel.id)
        for kind in NoticeKind:
            mine = [one for one in held if one.notice.kind is kind]
            if mine and digest_due(kind, mine[0].created_at, at):
                whole = digest([one.notice for one in mine])
                await unit.notifications.add(channel.id, whole, at, DeliveryState.PENDING)
                await unit.notifications.digested([one.id for one in mine])

    async def _delivered(self, channel: Channel, delivery: Delivery) -> bool:
        try:
            await self.notifiers[channel.kind].send(channel, delivery)
        except ServiceError as error:
            await self._failed(channel, delivery, error)
            return False
        async with self.database.write() as unit:
            await unit.notifications.delivered(delivery, self.clock())
        self.metrics.notifications.labels(channel.kind.value, "delivered").inc()
        return True

    async def _failed(self, channel: Channel, delivery: Delivery, error: ServiceError) -> None:
        tries = delivery.tries + 1
        pause = timedelta(seconds=pause_s(tries, self.dice()))
        again = None if tries >= MOST_TRIES else self.clock() + pause
        async with self.database.write() as unit:
            await unit.notifications.failed(delivery, f"{error.code}: {error.detail}", again)
        outcome = "dead" if again is None else "failed"
        self.metrics.notifications.labels(channel.kind.value, outcome).inc()
        _log.warning("notification_failed", channel=channel.id, tries=tries, cause=str(error.code))
