"""Transactional outbox: turns events into notifications and applies the rate limits."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.alerts.domain.notifications import (
    HOUR,
    MAX_HELD,
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
    suppressed_count,
)
from app.alerts.storage.notifications import NotificationRepository
from app.configuration.domain.sections import NotificationSettings
from app.foundation.clock import SharedClock, agreed
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.foundation.sql.unit_of_work import UnitOfWork

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
