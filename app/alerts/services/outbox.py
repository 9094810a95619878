"""The outbox: makes notices of events, and holds back what would be too much for people."""

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
    """A notice and the fact that its event was read are committed together."""

    database: Database
    clock: Clock
    metrics: Metrics
    rules: Callable[[], NotificationSettings] = NotificationSettings
    shared: SharedClock | None = None  # None: this process is the only one

    async def collect(self) -> tuple[Channel, ...]:
        """Notices of everything committed since the last time; all channels."""
        while True:
            async with self.database.read() as unit:
                channels = await unit.get(NotificationRepository).channels()
                is_behind = await unit.get(NotificationRepository).unseen() > 0
            # What is held back for people becomes due without an event.
            to_people = any(one.enabled and one.kind is ChannelKind.APPRISE for one in channels)
            if not (is_behind or to_people):
                return channels
            if await self.database.run(lambda unit, known=channels: self._page(unit, known)):  # type: ignore[misc]  # bound now
                return channels

    async def _page(self, unit: UnitOfWork, channels: tuple[Channel, ...]) -> bool:
        """One page of events; True when there are no more."""
        if not any(channel.enabled for channel in channels):
            # Everybody who writes waits for us: what nobody is to be told need not be read.
            await unit.get(NotificationRepository).seen_all()
            return True
        position = await unit.get(NotificationRepository).position()
        records = await unit.get(EventRepository).after(position, _PAGE)
        notices = [notice for record in records if (notice := notification_of(record)) is not None]
        at = await agreed(unit, self.shared, self.clock)
        for channel in channels:
            mine = [one for one in notices if channel.enabled and one.kind in channel.kinds]
            if channel.kind is ChannelKind.APPRISE:
                if channel.enabled:
                    await _Desk(unit, channel, self, at).take(mine)
                continue
            for notice in mine:  # a program wants everything
                await unit.get(NotificationRepository).add(
                    channel.id, notice, at, DeliveryState.PENDING
                )
        if records:
            await unit.get(NotificationRepository).seen(records[-1].seq)
        return len(records) < _PAGE


@dataclass(slots=True)
class _Desk:
    """What one channel to people is given in one transaction."""

    unit: UnitOfWork
    channel: Channel
    outbox: Outbox
    at: datetime

    async def take(self, notices: list[Notification]) -> None:
        rules, at, log = self.outbox.rules(), self.at, self.unit.get(NotificationRepository)
        held = list(await log.held(self.channel.id))
        if not notices and not held:
            return
        waiting = await log.waiting(self.channel.id, rules.per_minute)
        told = [*await log.told_since(self.channel.id, at - HOUR)] if notices else []
        kept, dropped = len(held), Counter[NotificationKind]()
        for notice in notices:
            if is_admitted(notice, told, waiting, at, rules):
                if await log.add(self.channel.id, notice, at, DeliveryState.PENDING):
                    told.append(RecentNotification(notice.kind, notice.key, at))
                    waiting += 1
            elif kept < MAX_HELD:
                kept += await log.add(self.channel.id, notice, at, DeliveryState.HELD)
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
            mine = [one for one in held if one.notice.kind is kind]
            notices = [one.notice for one in mine]
            if not mine or waiting >= rules.per_minute:
                continue
            if is_digest_due(notices, mine[0].created_at, at, rules):
                await log.add(self.channel.id, digest(notices), at, DeliveryState.PENDING)
                await log.digested([one.id for one in mine])
                waiting += 1

    def _count(self, outcome: str, number: int) -> None:
        self.outbox.metrics.notifications.labels(self.channel.kind.value, outcome).inc(number)
