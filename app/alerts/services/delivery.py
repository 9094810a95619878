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
    notification_of,
    remaining_quota,
    retry_delay_s,
    suppressed_count,
)
from app.alerts.services.monitor import no_op
from app.alerts.services.notifications import Notifiers
from app.alerts.storage.notifications import NotificationRepository
from app.configuration.domain.sections import NotificationSettings
from app.foundation.clock import SharedClock, agreed
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
    rules: Callable[[], NotificationSettings] = NotificationSettings
    shared: SharedClock | None = None  # None: this process is the only one

    async def collect(self) -> tuple[Channel, ...]:
        """Turn committed events into notifications and return all channels."""
        while True:
            async with self.database.read() as unit:
                channels = await unit.get(NotificationRepository).channels()
                is_behind = await unit.get(NotificationRepository).unseen() > 0
            # A digest becomes due without an event.
            to_people = any(one.enabled and one.kind is ChannelKind.APPRISE for one in channels)
            if not (is_behind or to_people):
                return channels
            if await self.database.run(lambda unit, known=channels: self._page(unit, known)):  # type: ignore[misc]  # bound now
                return channels

    async def _page(self, unit: UnitOfWork, channels: tuple[Channel, ...]) -> bool:
        """Process one page of events; True when none are left."""
        if not any(channel.enabled for channel in channels):
            # This lock delays every writer: without a receiver the events need not be read.
            await unit.get(NotificationRepository).seen_all()
            return True
        position = await unit.get(NotificationRepository).position()
        records = await unit.get(EventRepository).after(position, _PAGE)
        notices = [notice for record in records if (notice := notification_of(record)) is not None]
        at = await agreed(unit, self.shared, self.clock)
        for channel in channels:
            wanted = [one for one in notices if channel.enabled and one.kind in channel.kinds]
            if channel.kind is ChannelKind.APPRISE:
                if channel.enabled:
                    await _PeopleChannel(unit, channel, self, at).add(wanted)
                continue
            for notice in wanted:  # webhooks get everything
                await unit.get(NotificationRepository).add(
                    channel.id, notice, at, DeliveryState.PENDING
                )
        if records:
            await unit.get(NotificationRepository).seen(records[-1].seq)
        return len(records) < _PAGE


@dataclass(slots=True)
class _PeopleChannel:
    """Rate-limited channel to people within one transaction."""

    unit: UnitOfWork
    channel: Channel
    outbox: Outbox
    at: datetime

    async def add(self, notices: list[Notification]) -> None:
        rules, at, log = self.outbox.rules(), self.at, self.unit.get(NotificationRepository)
        held = list(await log.held(self.channel.id))
        if not notices and not held:
            return
        waiting = await log.waiting(self.channel.id, rules.per_minute)
        recent = [*await log.sent_since(self.channel.id, at - HOUR)] if notices else []
        stored, dropped = len(held), Counter[NotificationKind]()
        for notice in notices:
            if is_admitted(notice, recent, waiting, at, rules):
                if await log.add(self.channel.id, notice, at, DeliveryState.PENDING):
                    recent.append(RecentNotification(notice.kind, notice.key, at))
                    waiting += 1
            elif stored < MAX_HELD:
                stored += await log.add(self.channel.id, notice, at, DeliveryState.HELD)
            else:
                dropped[notice.kind] += 1
        for kind, number in dropped.items():
            await log.add(self.channel.id, suppressed_count(kind, number), at, DeliveryState.HELD)
            self._count("dropped", number)
        await self._digest(held if not notices else await log.held(self.channel.id), waiting, rules)

    async def _digest(
        self, held: tuple[Delivery, ...] | list[Delivery], waiting: int, rules: NotificationSettings
    ) -> None:
        at, log = self.at, self.unit.get(NotificationRepository)
        for kind in NotificationKind:
            same_kind = [one for one in held if one.notice.kind is kind]
            notices = [one.notice for one in same_kind]
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

    `rounded` runs after each round, `dice` gives numbers in 0..1. A crash between a delivery and
    its record repeats the delivery with the same event id.
    """

    database: Database
    clock: Clock
    dice: Callable[[], float]
    notifiers: Notifiers
    metrics: Metrics
    rules: Callable[[], NotificationSettings] = NotificationSettings
    rounded: Callable[[], Awaitable[None]] = no_op
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    shared: SharedClock | None = None  # None: this process is the only one
    _busy: set[str] = field(default_factory=set)
    _channels: tuple[Channel, ...] = field(default=(), init=False)  # as last read
    _mark: CommitMark = field(default_factory=CommitMark, init=False)

    async def run(self, beat: Callable[[], None]) -> None:
        """Dispatch until cancelled; a slow receiver delays only its own channel."""
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
        """Turn committed events into notifications and return all channels."""
        # A digest becomes due without an event.
        has_digests = any(one.kind is ChannelKind.APPRISE for one in self._channels)
        if has_digests or not self._mark.is_newest(self.database):
            commits = self.database.commits
            made = self.database, self.clock, self.metrics, self.rules, self.shared
            self._channels = await Outbox(*made).collect()
            self._mark.move(commits)
        return self._channels

    async def drain(self, channel: Channel) -> None:
        """Deliver what is due over one channel, oldest first, until the first failure."""
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
        """Claim deliveries: webhooks all in order, people critical ones first within the quota."""
        at, log = await agreed(unit, self.shared, self.clock), unit.get(NotificationRepository)
        if channel.kind is ChannelKind.WEBHOOK:
            return await log.claim(channel.id, at, _BATCH)
        left, ordinary = remaining_quota(
            await log.delivered_since(channel.id, at - MINUTE), self.rules()
        )
        grave = await log.claim(channel.id, at, critical=True) if left else ()
        return grave or (await log.claim(channel.id, at, critical=False) if ordinary else ())

    async def _delivered(self, channel: Channel, claimed: tuple[Delivery, ...]) -> bool:
        """Deliver a batch; whether every delivery succeeded."""
        begun = noted = self.clock()
        done: list[tuple[Delivery, datetime]] = []
        left = list(claimed)
        try:
            async with self.notifiers[channel.kind].line(channel) as tell:
                while left and self.clock() - begun < _LATEST:
                    await tell(left[0])
                    done.append((left.pop(0), self.clock()))
                    if self.clock() - noted >= _RECORD_INTERVAL:
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
        """Record a failure with the deliveries before it; later ones are released."""
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
    """Delivery times converted to the shared clock."""
    return [(delivery, at - ahead) for delivery, at in done]
