"""Transactional outbox: turns events into notifications and delivers them in order."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import structlog

from app.alerts.domain.notifications import (
    HOUR,
    MAX_ATTEMPTS,
    MAX_HELD,
    MINUTE,
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    Notification,
    NotificationKind,
    RecentNotification,
    digest,
    is_admitted,
    is_digest_due,
    notification_from_event,
    remaining_quota,
    retry_delay_s,
    suppressed_count,
)
from app.alerts.services.monitor import do_nothing
from app.alerts.services.notifications import Notifiers
from app.alerts.storage.notifications import NotificationRepository
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import NotificationSettings
from app.foundation.clock import SharedClock, current_time
from app.foundation.errors import ServiceError
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock
from app.foundation.sql.database import CommitMark, Database, UnitOfWork
from app.foundation.sql.events import EventRepository

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Outbox:
    """Commits notifications together with the position in the event stream."""

    database: Database
    clock: Clock
    metrics: Metrics
    in_force: Callable[[], Configuration] = Configuration
    shared: SharedClock | None = None  # None: this process is the only one
    api_url: str | None = None  # public address for links

    async def collect(self) -> tuple[Channel, ...]:
        """Turns committed events into notifications and returns all channels."""
        while True:
            async with self.database.read() as unit:
                channels = await unit.get(NotificationRepository).channels()
                is_behind = await unit.get(NotificationRepository).backlog() > 0
            # A digest becomes due without an event.
            to_people = any(one.enabled and one.kind is ChannelKind.APPRISE for one in channels)
            if not (is_behind or to_people):
                return channels
            if await self.database.run(lambda unit, known=channels: self._page(unit, known)):  # type: ignore[misc]  # bound now
                return channels

    async def _page(self, unit: UnitOfWork, channels: tuple[Channel, ...]) -> bool:
        """Processes one page of events; True if none are left."""
        if not any(channel.enabled for channel in channels):
            # The lock delays every writer, so without a receiver the events are skipped unread.
            await unit.get(NotificationRepository).skip_to_newest()
            return True
        position = await unit.get(NotificationRepository).position()
        records = await unit.get(EventRepository).after(position, _PAGE)
        priorities = self.in_force().notification_priorities
        described = (notification_from_event(one, priorities, self.api_url) for one in records)
        notices = [notification for notification in described if notification is not None]
        at = await current_time(unit, self.shared, self.clock)
        for channel in channels:
            wanted = [one for one in notices if channel.enabled and one.kind in channel.kinds]
            if channel.kind is ChannelKind.APPRISE:
                if channel.enabled:
                    await _PeopleChannel(unit, channel, self, at).add(wanted)
                continue
            for notification in wanted:  # webhooks have no rate limits
                await unit.get(NotificationRepository).add(
                    channel.id, notification, at, DeliveryState.PENDING
                )
        if records:
            await unit.get(NotificationRepository).set_position(records[-1].seq)
        return len(records) < _PAGE


@dataclass(slots=True)
class _PeopleChannel:
    """Rate-limited channel to people within one transaction."""

    unit: UnitOfWork
    channel: Channel
    outbox: Outbox
    at: datetime

    async def add(self, notices: list[Notification]) -> None:
        rules, at, log = (
            self.outbox.in_force().notifications,
            self.at,
            self.unit.get(NotificationRepository),
        )
        held = list(await log.list_held(self.channel.id))
        if not notices and not held:
            return
        waiting = await log.waiting(self.channel.id, rules.per_minute)
        recent = [*await log.sent_since(self.channel.id, at - HOUR)] if notices else []
        stored, dropped = len(held), Counter[NotificationKind]()
        for notification in notices:
            if is_admitted(notification, recent, waiting, at, rules):
                if await log.add(self.channel.id, notification, at, DeliveryState.PENDING):
                    recent.append(RecentNotification(notification.kind, notification.key, at))
                    waiting += 1
            elif stored < MAX_HELD:
                stored += await log.add(self.channel.id, notification, at, DeliveryState.HELD)
            else:
                dropped[notification.kind] += 1
        for kind, number in dropped.items():
            await log.add(self.channel.id, suppressed_count(kind, number), at, DeliveryState.HELD)
            self._count("dropped", number)
        await self._digest(
            held if not notices else await log.list_held(self.channel.id), waiting, rules
        )

    async def _digest(
        self, held: tuple[Delivery, ...] | list[Delivery], waiting: int, rules: NotificationSettings
    ) -> None:
        at, log = self.at, self.unit.get(NotificationRepository)
        for kind in NotificationKind:
            same_kind = [one for one in held if one.notification.kind is kind]
            notices = [one.notification for one in same_kind]
            if not same_kind or waiting >= rules.per_minute:
                continue
            if is_digest_due(notices, same_kind[0].created_at, at, rules):
                await log.add(self.channel.id, digest(notices), at, DeliveryState.PENDING)
                await log.digested([one.id for one in same_kind])
                waiting += 1

    def _count(self, outcome: str, number: int) -> None:
        self.outbox.metrics.notifications.labels(self.channel.kind.value, outcome).inc(number)


STEP_S: Final = 1.0
_BATCH: Final = 200
# Interval of recording deliveries; a crash repeats at most these.
_RECORD_INTERVAL: Final = timedelta(seconds=1)
# Latest start of a delivery in a batch: the claim must outlast its time-out.
_LATEST: Final = timedelta(seconds=20)
_log = structlog.get_logger("notifications")


@dataclass(slots=True)
class NotificationDispatcher:
    """Dispatches notifications; several processes share the work by claims in the database.

    `after_round` runs after each round; `random` returns numbers in 0..1. A crash between a
    delivery and its record repeats the delivery with the same event id.
    """

    database: Database
    clock: Clock
    random: Callable[[], float]
    notifiers: Notifiers
    metrics: Metrics
    in_force: Callable[[], Configuration] = Configuration
    after_round: Callable[[], Awaitable[None]] = do_nothing
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    shared: SharedClock | None = None  # None: this process is the only one
    api_url: str | None = None  # public address for links
    _busy: set[str] = field(default_factory=set)
    _channels: tuple[Channel, ...] = field(default=(), init=False)  # as last read
    _mark: CommitMark = field(default_factory=CommitMark, init=False)

    async def run(self, beat: Callable[[], None]) -> None:
        """Dispatches until cancelled; a slow receiver delays only its own channel."""
        async with asyncio.TaskGroup() as group:
            while True:
                for channel in await self.collect():
                    if channel.enabled and channel.id not in self._busy:
                        self._busy.add(channel.id)
                        group.create_task(self._drain_alone(channel))
                beat()
                await self.after_round()
                await self.sleep(STEP_S)

    async def collect(self) -> tuple[Channel, ...]:
        """Turns committed events into notifications and returns all channels."""
        # A digest becomes due without an event.
        has_digests = any(one.kind is ChannelKind.APPRISE for one in self._channels)
        if has_digests or not self._mark.is_newest(self.database):
            commits = self.database.commits
            outbox = Outbox(
                self.database, self.clock, self.metrics, self.in_force, self.shared, self.api_url
            )
            self._channels = await outbox.collect()
            self._mark.move(commits)
        return self._channels

    async def drain(self, channel: Channel) -> None:
        """Delivers due notifications over one channel, oldest first, until the first failure."""
        while True:
            async with self.database.write() as unit:
                claimed = await self._claim(unit, channel)
            if not claimed or not await self._deliver_batch(channel, claimed):
                return

    async def _drain_alone(self, channel: Channel) -> None:
        try:
            await self.drain(channel)
        finally:
            self._busy.discard(channel.id)

    async def _claim(self, unit: UnitOfWork, channel: Channel) -> tuple[Delivery, ...]:
        """Claims deliveries: all in order for webhooks, by priority for people."""
        at, log = (
            await current_time(unit, self.shared, self.clock),
            unit.get(NotificationRepository),
        )
        if channel.kind is ChannelKind.WEBHOOK:
            return await log.claim(channel.id, at, _BATCH)
        remaining, ordinary = remaining_quota(
            await log.delivered_since(channel.id, at - MINUTE), self.in_force().notifications
        )
        immediate = await log.claim(channel.id, at, critical=True) if remaining else ()
        return immediate or (await log.claim(channel.id, at, critical=False) if ordinary else ())

    async def _deliver_batch(self, channel: Channel, claimed: tuple[Delivery, ...]) -> bool:
        """Delivers a batch; True if every delivery succeeded."""
        started = recorded = self.clock()
        done: list[tuple[Delivery, datetime]] = []
        remaining = list(claimed)
        try:
            async with self.notifiers[channel.kind].line(channel) as send:
                while remaining and self.clock() - started < _LATEST:
                    await send(remaining[0])
                    done.append((remaining.pop(0), self.clock()))
                    if self.clock() - recorded >= _RECORD_INTERVAL:
                        await self._record_deliveries(channel, done)
                        recorded, done = self.clock(), []
        except ServiceError as error:
            await self._record_failure(channel, remaining[0], error, (done, remaining[1:]))
            return False
        await self._record_deliveries(channel, done, remaining)
        return True

    async def _record_deliveries(
        self,
        channel: Channel,
        done: list[tuple[Delivery, datetime]],
        remaining: list[Delivery] | None = None,
    ) -> None:
        async with self.database.write() as unit:
            ahead = self.clock() - await current_time(unit, self.shared, self.clock)
            await unit.get(NotificationRepository).delivered(_stamped(done, ahead))
            await unit.get(NotificationRepository).release(remaining or [])
        self.metrics.notifications.labels(channel.kind.value, "delivered").inc(len(done))

    async def _record_failure(
        self,
        channel: Channel,
        delivery: Delivery,
        error: ServiceError,
        others: tuple[list[tuple[Delivery, datetime]], list[Delivery]],
    ) -> None:
        """Records a failure and the deliveries before it; releases later ones."""
        attempts = delivery.attempts + 1
        pause = timedelta(seconds=retry_delay_s(attempts, self.random()))
        done, later = others
        async with self.database.write() as unit:
            now = await current_time(unit, self.shared, self.clock)
            next_attempt_at = None if attempts >= MAX_ATTEMPTS else now + pause
            await unit.get(NotificationRepository).delivered(_stamped(done, self.clock() - now))
            await unit.get(NotificationRepository).release(later)
            await unit.get(NotificationRepository).failed(
                delivery, f"{error.code}: {error.detail}", next_attempt_at
            )
        outcome = "dead" if next_attempt_at is None else "failed"
        self.metrics.notifications.labels(channel.kind.value, "delivered").inc(len(done))
        self.metrics.notifications.labels(channel.kind.value, outcome).inc()
        _log.warning(
            "notification_failed", channel=channel.id, attempts=attempts, cause=str(error.code)
        )


def _stamped(
    done: list[tuple[Delivery, datetime]], ahead: timedelta
) -> list[tuple[Delivery, datetime]]:
    """Delivery times converted to the shared clock."""
    return [(delivery, at - ahead) for delivery, at in done]
