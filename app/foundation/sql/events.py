"""Event log: committed events in commit order, until retention deletes them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.foundation.events import EventDraft, EventRecord, EventTopic
from app.foundation.sql.errors import CONNECT_ERRORS, translate, unavailable_error
from app.foundation.sql.tables import STREAM_ID, event_head
from app.foundation.sql.tables import events as table

CHANNEL: Final = "my_symbols_events"  # of PostgreSQL's NOTIFY: hints that new events exist
# Built once: building a statement takes as long as running it.
_HEAD: Final = select(event_head.c.seq).where(event_head.c.id == STREAM_ID)
_NEW: Final = (
    table.insert()
    .inline()  # otherwise SQLAlchemy reads the number back
    .values(seq=_HEAD.scalar_subquery() - bindparam("behind"))
)
_AFTER: Final = (
    select(table)
    .where(table.c.seq > bindparam("seen"))
    .order_by(table.c.seq)
    .limit(bindparam("most"))
)
_TAKE: Final = (
    event_head.update()
    .where(event_head.c.id == STREAM_ID)
    .values(seq=event_head.c.seq + bindparam("count"))
)
# NOTIFY is sent at the commit to every process; a process that misses it polls later.
_TAKE_AND_NOTIFY: Final = _TAKE.returning(func.pg_notify(CHANNEL, ""))


@dataclass(frozen=True, slots=True)
class EventRepository:
    """Events by their number, which has no gaps.

    A reader that continues after number n misses nothing. The head row stays locked until the
    commit, so no smaller number can become visible later.
    """

    connection: AsyncConnection

    async def append(self, drafts: Sequence[EventDraft]) -> None:
        """Stores the drafts as the next events; call it last, its lock lasts until the commit."""
        if not drafts:
            return
        has_notify = self.connection.dialect.name == "postgresql"
        await self.connection.execute(
            _TAKE_AND_NOTIFY if has_notify else _TAKE, {"count": len(drafts)}
        )
        last = len(drafts) - 1
        await self.connection.execute(
            _NEW, [_row(draft, last - at) for at, draft in enumerate(drafts)]
        )

    async def head(self) -> int:
        """Returns the newest number; 0 before the first event."""
        return int((await self.connection.execute(_HEAD)).scalar_one())

    async def floor(self) -> int:
        """Returns the newest deleted number; 0 while no event is deleted."""
        oldest = (await self.connection.execute(select(func.min(table.c.seq)))).scalar()
        return await self.head() if oldest is None else int(oldest) - 1

    async def after(
        self, seq: int, limit: int, topics: Sequence[EventTopic] | None = None
    ) -> tuple[EventRecord, ...]:
        """Returns events after `seq`, oldest first, at most `limit`, optionally of some topics."""
        query = _AFTER
        if topics is not None:
            query = query.where(table.c.topic.in_([topic.value for topic in topics]))
        return tuple(
            _record(row)
            for row in await self.connection.execute(query, {"seen": seq, "most": limit})
        )

    async def number_before(self, at: datetime) -> int:
        """Returns the number after which every stored event later than `at` comes.

        Numbers follow commits, not times: some events after it may be older.
        """
        later = select(func.min(table.c.seq)).where(table.c.occurred_at > at)
        first = (await self.connection.execute(later)).scalar()
        return await self.head() if first is None else int(first) - 1

    async def oldest_time(self) -> datetime | None:
        """Returns the time of the oldest stored event; None without one."""
        oldest = select(table.c.occurred_at).order_by(table.c.seq).limit(1)
        at: datetime | None = (await self.connection.execute(oldest)).scalar()
        return at

    async def newest(self, topic: EventTopic, upto: int) -> EventRecord | None:
        """Returns the newest stored event of a topic up to number `upto`."""
        wanted = select(table).where(table.c.topic == topic.value, table.c.seq <= upto)
        row = (await self.connection.execute(wanted.order_by(table.c.seq.desc()).limit(1))).first()
        return None if row is None else _record(row)

    async def forget(self, before: datetime, most: int) -> int:
        """Deletes events older than `before` and all but the newest `most`; returns the number.

        Deletes only from the oldest end, so that the log has no hole.
        """
        recent = select(func.min(table.c.seq)).where(table.c.occurred_at >= before)
        oldest = (await self.connection.execute(recent)).scalar()
        head = await self.head()
        bound = max(head if oldest is None else int(oldest) - 1, head - most)
        deleted = await self.connection.execute(table.delete().where(table.c.seq <= bound))
        return deleted.rowcount


def _row(draft: EventDraft, behind: int) -> dict[str, Any]:
    return {
        "behind": behind,  # distance from the newest number
        "topic": draft.topic.value,
        "type": draft.type,
        "subject": draft.subject,
        "data": dict(draft.data),
        "occurred_at": draft.occurred_at,
    }


def _record(row: Row[Any]) -> EventRecord:
    return EventRecord(
        EventTopic(row.topic), row.type, row.subject, row.data, row.occurred_at, row.seq
    )


CHECK_S: Final = 10.0  # a silent connection is tested this often


async def listen(
    engine: AsyncEngine,
    hint: Callable[[], None],
    beat: Callable[[], None],
    channels: Mapping[str, Callable[[str], None]] = MappingProxyType({}),
) -> None:
    """Calls `hint` at each commit of events by any process, on a connection of its own.

    Messages of other `channels` go to their functions. Never returns; raises UnavailableError when
    the connection is lost. The first call of `hint` comes at once, for events before the
    connection.
    """

    def pass_on(_driver: object, _process: int, channel: str, message: str) -> None:
        channels[channel](message)

    lost = asyncio.Event()
    try:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            driver.add_termination_listener(lambda _: lost.set())
            await driver.add_listener(CHANNEL, lambda *_: hint())
            for channel in channels:
                await driver.add_listener(channel, pass_on)
            hint()
            while not lost.is_set():
                beat()
                try:
                    async with asyncio.timeout(CHECK_S):
                        await lost.wait()
                except TimeoutError:
                    await driver.execute("SELECT 1")
            await connection.invalidate()
    except (SQLAlchemyError, *CONNECT_ERRORS) as e:
        raise translate(e) or unavailable_error() from e
    raise unavailable_error()
