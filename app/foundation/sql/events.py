"""Every event that was committed, in the order of the commits, for as long as it is kept."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.foundation.events import EventDraft, EventRecord, Topic
from app.foundation.sql.errors import CONNECT_ERRORS, translated, unavailable
from app.foundation.sql.tables import STREAM_ID, event_head
from app.foundation.sql.tables import events as table

CHANNEL: Final = "my_symbols_events"  # of PostgreSQL's NOTIFY: a hint that there is something new
# Made once: putting a statement together takes as long as carrying it out.
_HEAD: Final = select(event_head.c.seq).where(event_head.c.id == STREAM_ID)
_NEW: Final = (
    table.insert()
    .inline()  # or its number would be asked for again
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
# Sent at the commit and to every process; who misses it looks by itself later.
_TAKEN_AND_TOLD: Final = _TAKE.returning(func.pg_notify(CHANNEL, ""))


@dataclass(frozen=True, slots=True)
class EventRepository:
    """Events by their number, which has no gaps.

    A reader that has seen number n and reads on after it misses nothing: the lock of the head
    is held until the commit, so that no smaller number can become visible later.
    """

    connection: AsyncConnection

    async def append(self, drafts: Sequence[EventDraft]) -> None:
        """The drafts as the next events. Call it last: its lock is held until the commit."""
        if not drafts:
            return
        tells = self.connection.dialect.name == "postgresql"
        await self.connection.execute(_TAKEN_AND_TOLD if tells else _TAKE, {"count": len(drafts)})
        last = len(drafts) - 1
        await self.connection.execute(
            _NEW, [_row(draft, last - at) for at, draft in enumerate(drafts)]
        )

    async def head(self) -> int:
        """The newest number; 0 while nothing has happened."""
        return int((await self.connection.execute(_HEAD)).scalar_one())

    async def floor(self) -> int:
        """The newest number that is no longer kept; 0 while everything is."""
        oldest = (await self.connection.execute(select(func.min(table.c.seq)))).scalar()
        return await self.head() if oldest is None else int(oldest) - 1

    async def after(
        self, seq: int, limit: int, topics: Sequence[Topic] | None = None
    ) -> tuple[EventRecord, ...]:
        """Oldest first, those after `seq`, at most `limit`; of some topics if wanted."""
        wanted = _AFTER
        if topics is not None:
            wanted = wanted.where(table.c.topic.in_([topic.value for topic in topics]))
        return tuple(
            _record(row)
            for row in await self.connection.execute(wanted, {"seen": seq, "most": limit})
        )

    async def forget(self, before: datetime, most: int) -> int:
        """Drops what happened before `before`, and all but the newest `most`; how many.

        Only ever from the old end, so that what is kept has no hole.
        """
        young = select(func.min(table.c.seq)).where(table.c.occurred_at >= before)
        oldest_kept = (await self.connection.execute(young)).scalar()
        head = await self.head()
        bound = max(head if oldest_kept is None else int(oldest_kept) - 1, head - most)
        gone = await self.connection.execute(table.delete().where(table.c.seq <= bound))
        return gone.rowcount


def _row(draft: EventDraft, behind: int) -> dict[str, Any]:
    return {
        "behind": behind,  # so much less than the newest number
        "topic": draft.topic.value,
        "type": draft.type,
        "subject": draft.subject,
        "data": dict(draft.data),
        "occurred_at": draft.occurred_at,
    }


def _record(row: Row[Any]) -> EventRecord:
    return EventRecord(Topic(row.topic), row.type, row.subject, row.data, row.occurred_at, row.seq)


CHECK_S: Final = 10.0  # a connection that says nothing may be dead


async def listen(engine: AsyncEngine, hint: Callable[[], None], beat: Callable[[], None]) -> None:
    """Calls `hint` at each commit of events by any process, on a connection of its own.

    Returns never; raises UnavailableError when the connection is lost. `hint` is called once at
    the beginning, for what came before.
    """
    lost = asyncio.Event()
    try:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            driver.add_termination_listener(lambda _: lost.set())
            await driver.add_listener(CHANNEL, lambda *_: hint())
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
        raise translated(e) or unavailable() from e
    raise unavailable()
