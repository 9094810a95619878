"""Stores notification channels and the outbox of each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, bindparam, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.alerts.domain.notifications import (
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    Notification,
    NotificationKind,
    RecentNotification,
    priority_rank,
)
from app.alerts.storage.tables import NOTIFIED, notification_channels
from app.alerts.storage.tables import notifications as table
from app.configuration.domain.sections import NotificationPriority
from app.foundation.errors import Code, NotFoundError
from app.foundation.sql.statements import insert, upsert
from app.foundation.sql.tables import STREAM_ID, event_head

CLAIM: Final = timedelta(seconds=60)  # after which another process may take over a delivery


@dataclass(frozen=True, slots=True)
class NotificationRepository:
    """Repository of channels and deliveries."""

    connection: AsyncConnection

    async def channels(self) -> tuple[Channel, ...]:
        """All channels by name."""
        wanted = select(notification_channels).order_by(notification_channels.c.name)
        return tuple(_channel(row) for row in await self.connection.execute(wanted))

    async def channel(self, channel_id: str) -> Channel:
        """Raises NotFoundError."""
        wanted = select(notification_channels).where(notification_channels.c.id == channel_id)
        row = (await self.connection.execute(wanted)).first()
        if row is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no channel with this id.")
        return _channel(row)

    async def save_channel(self, channel: Channel) -> None:
        """Inserts or updates a channel. Raises ConflictError if its name is taken."""
        row = {**asdict(channel), "kind": channel.kind.value}
        row["kinds"] = [kind.value for kind in channel.kinds]
        await self.connection.execute(upsert(self.connection, notification_channels), row)

    async def drop_channel(self, channel_id: str) -> None:
        """Deletes a channel with its deliveries. Raises NotFoundError."""
        await self.channel(channel_id)
        await self.connection.execute(table.delete().where(table.c.channel_id == channel_id))
        statement = notification_channels.delete().where(notification_channels.c.id == channel_id)
        await self.connection.execute(statement)

    async def position(self) -> int:
        """Last processed event; the row stays locked until the end of the transaction."""
        return await self._set_position(event_head.c.seq)

    async def set_position(self, seq: int) -> None:
        await self._set_position(seq)

    async def backlog(self) -> int:
        """Number of events committed since the last processed one."""
        heads = select(event_head.c.id, event_head.c.seq)
        by_id = {head.id: head.seq for head in await self.connection.execute(heads)}
        return int(by_id[STREAM_ID]) - int(by_id[NOTIFIED])

    async def skip_to_newest(self) -> None:
        """Marks every committed event as processed without reading it."""
        newest = select(event_head.c.seq).where(event_head.c.id == STREAM_ID)
        await self._set_position(newest.scalar_subquery())

    async def _set_position(self, seq: Any) -> int:
        moved = await self.connection.execute(
            event_head.update()
            .where(event_head.c.id == NOTIFIED)
            .values(seq=seq)
            .returning(event_head.c.seq)
        )
        return int(moved.scalar_one())

    async def add(
        self, channel_id: str, notification: Notification, at: datetime, state: DeliveryState
    ) -> bool:
        """Adds a delivery; False if the channel already has this event."""
        row = {
            "channel_id": channel_id,
            **{name: getattr(notification, name) for name in _SHARED},
            "kind": notification.kind.value,
            "is_critical": notification.is_critical,
            "priority": notification.priority.value,
            "key": notification.key[:255],
            "event": dict(notification.event),
            "state": state.value,
            "attempts": 0,
            "created_at": at,
            "next_attempt_at": at if state is DeliveryState.PENDING else None,
        }
        added = await self.connection.execute(
            insert(self.connection, table).on_conflict_do_nothing(), row
        )
        return added.rowcount == 1

    async def newest(self, channel_id: str) -> Delivery:
        """Delivery added last to a channel."""
        wanted = select(table).where(table.c.channel_id == channel_id)
        newest = wanted.order_by(table.c.id.desc()).limit(1)
        return _delivery((await self.connection.execute(newest)).one())

    async def sent_since(self, channel_id: str, since: datetime) -> tuple[RecentNotification, ...]:
        """Notifications that count against the limits: all but held ones and digests."""
        counted = [one.value for one in DeliveryState if one not in _HELD_BACK]
        wanted = select(table.c.kind, table.c.key, table.c.created_at).where(
            table.c.channel_id == channel_id,
            table.c.created_at > since,
            table.c.state.in_(counted),
            table.c.event_seq.is_not(None),
        )
        return tuple(
            RecentNotification(NotificationKind(row.kind), row.key, row.created_at)
            for row in await self.connection.execute(wanted)
        )

    async def list_held(self, channel_id: str) -> tuple[Delivery, ...]:
        """Returns the deliveries held back for the digest, oldest first."""
        state = table.c.state == DeliveryState.HELD.value
        wanted = select(table).where(table.c.channel_id == channel_id, state).order_by(table.c.id)
        return tuple(_delivery(row) for row in await self.connection.execute(wanted))

    async def digested(self, ids: Sequence[int]) -> None:
        await self._set(ids, state=DeliveryState.DIGESTED.value)

    async def claim(
        self, channel_id: str, at: datetime, most: int = 1, *, critical: bool | None = None
    ) -> tuple[Delivery, ...]:
        """Claims the oldest pending deliveries that are due and unclaimed.

        Claims start at the oldest, to preserve the order. `critical` selects immediate or other
        deliveries, these by priority first; each of the two has its own order.
        """
        wanted = select(table).where(self._pending(channel_id, critical))
        if critical is False:
            wanted = wanted.order_by(_BY_PRIORITY)
        rows = (await self.connection.execute(wanted.order_by(table.c.id).limit(most))).all()
        ready = list(takewhile(lambda row: row.next_attempt_at <= at, rows))
        # Every process begins at the oldest, so that its claim covers the later ones.
        if not ready or not await self._claimed([ready[0].id], at):
            return ()
        if len(ready) > 1:
            await self._claimed([row.id for row in ready[1:]], at)
        return tuple(_delivery(row) for row in ready)

    async def _claimed(self, ids: Sequence[int], at: datetime) -> bool:
        free = (table.c.claimed_until.is_(None)) | (table.c.claimed_until <= at)
        pending = table.c.state == DeliveryState.PENDING.value
        taken = await self.connection.execute(
            table.update()
            .where(table.c.id.in_(ids), pending, free)
            .values(claimed_until=at + CLAIM)
        )
        return taken.rowcount == len(ids)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Releases claimed deliveries that were not attempted."""
        await self._set([one.id for one in deliveries], claimed_until=None)

    async def waiting(self, channel_id: str, most: int) -> int:
        """Number of pending deliveries, at most `most`."""
        few = select(table.c.id).where(self._pending(channel_id)).limit(most).subquery()
        counted = await self.connection.execute(select(func.count()).select_from(few))
        return int(counted.scalar_one())

    async def delivered_since(self, channel_id: str, since: datetime) -> int:
        """Number of deliveries after `since`."""
        counted = await self.connection.execute(
            select(func.count()).where(
                table.c.channel_id == channel_id,
                table.c.state == DeliveryState.DELIVERED.value,
                table.c.delivered_at > since,
            )
        )
        return int(counted.scalar_one())

    async def delivered(self, done: Sequence[tuple[Delivery, datetime]]) -> None:
        """Records successful deliveries with their times."""
        arrived = (
            table.update()
            .where(table.c.id == bindparam("delivery_id"))
            .values(
                state=DeliveryState.DELIVERED.value,
                attempts=table.c.attempts + 1,
                next_attempt_at=None,
                claimed_until=None,
                delivered_at=bindparam("at"),
                error=None,
            )
        )
        if done:
            await self.connection.execute(
                arrived, [{"delivery_id": delivery.id, "at": at} for delivery, at in done]
            )

    async def failed(
        self, delivery: Delivery, error: str, next_attempt_at: datetime | None
    ) -> None:
        """Records a failed attempt; without a next one the delivery is dead."""
        state = DeliveryState.DEAD if next_attempt_at is None else DeliveryState.PENDING
        await self._set(
            [delivery.id],
            state=state.value,
            attempts=delivery.attempts + 1,
            next_attempt_at=next_attempt_at,
            claimed_until=None,
            error=error[:255],
        )

    async def redrive(self, delivery_id: int, at: datetime) -> None:
        """Queues a dead delivery again with an attempt count of 0."""
        values = {"state": DeliveryState.PENDING.value, "attempts": 0, "next_attempt_at": at}
        await self._set([delivery_id], **values)

    async def get(self, delivery_id: int) -> Delivery:
        """Raises NotFoundError."""
        wanted = select(table).where(table.c.id == delivery_id)
        row = (await self.connection.execute(wanted)).first()
        if row is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no notification with this id.")
        return _delivery(row)

    async def page(
        self,
        before: int | None,
        limit: int,
        channel_id: str | None = None,
        state: DeliveryState | None = None,
    ) -> tuple[Delivery, ...]:
        """Page of deliveries, newest first, before id `before`."""
        wanted = select(table).order_by(table.c.id.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(table.c.id < before)
        if channel_id is not None:
            wanted = wanted.where(table.c.channel_id == channel_id)
        if state is not None:
            wanted = wanted.where(table.c.state == state.value)
        return tuple(_delivery(row) for row in await self.connection.execute(wanted))

    async def delete_old(self, before: datetime) -> int:
        """Deletes completed deliveries created before `before`; returns their number."""
        completed = (DeliveryState.DELIVERED.value, DeliveryState.DIGESTED.value)
        deleted = await self.connection.execute(
            table.delete().where(table.c.created_at < before, table.c.state.in_(completed))
        )
        return deleted.rowcount

    def _pending(self, channel_id: str, critical: bool | None = None) -> ColumnElement[bool]:
        due = (table.c.channel_id == channel_id) & (table.c.state == DeliveryState.PENDING.value)
        return due if critical is None else due & (table.c.is_critical.is_(critical))

    async def _set(self, ids: Sequence[int], **values: Any) -> None:
        if ids:
            await self.connection.execute(
                table.update().where(table.c.id.in_(ids)).values(**values)
            )


_SHARED: Final = ("title", "body", "event_seq")
_BY_PRIORITY: Final = case(
    {one.value: priority_rank(one) for one in NotificationPriority},
    value=table.c.priority,
    else_=priority_rank(NotificationPriority.NORMAL),
)
_HELD_BACK: Final = (DeliveryState.HELD, DeliveryState.DIGESTED)


def _channel(row: Row[Any]) -> Channel:
    return Channel(
        id=row.id,
        name=row.name,
        kind=ChannelKind(row.kind),
        url=row.url,
        secret=row.secret,
        kinds=tuple(NotificationKind(kind) for kind in row.kinds),
        enabled=row.enabled,
        created_at=row.created_at,
    )


def _priority(row: Row[Any]) -> NotificationPriority:
    if row.priority is not None:
        return NotificationPriority(row.priority)
    return NotificationPriority.IMMEDIATE if row.is_critical else NotificationPriority.NORMAL


def _delivery(row: Row[Any]) -> Delivery:
    shared = {name: getattr(row, name) for name in _SHARED}
    return Delivery(
        id=row.id,
        channel_id=row.channel_id,
        notification=Notification(
            kind=NotificationKind(row.kind),
            priority=_priority(row),
            key=row.key,
            event=row.event,
            **shared,
        ),
        state=DeliveryState(row.state),
        attempts=row.attempts,
        created_at=row.created_at,
        next_attempt_at=row.next_attempt_at,
        delivered_at=row.delivered_at,
        error=row.error,
    )
