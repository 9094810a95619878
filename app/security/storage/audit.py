"""Security events: a hash chain with its own table, head and lock, and an anchor after deletion."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.hash_chain import ChainHead, instant_text
from app.foundation.sql.hash_chain import ChainTable
from app.foundation.sql.key_value import KeyValueRepository
from app.security.domain.audit import (
    SYSTEM,
    SecurityAnchor,
    SecurityDraft,
    SecurityEvent,
    SecurityEventKind,
    unsealed_security_events,
)
from app.security.domain.bursts import Burst, merge_bursts, read_bursts
from app.security.storage.tables import security_anchors as anchors
from app.security.storage.tables import security_events as table

HEAD: Final = "security_head"  # fact of the newest event, stored apart from the events
BURSTS: Final = "authentication_bursts"  # fact of the bursts that are not over
TRIMMED: Final = "security_events_trimmed"  # fact of the last deletion by number
DELETED_AT_ONCE: Final = 5_000
_BATCH: Final = 1_000
_FIELDS: Final = tuple(table.c[name] for name in SecurityEvent.__slots__)
_EVENTS: Final = select(*_FIELDS)
_ANCHOR: Final = select(anchors.c.seq, anchors.c.hash).order_by(anchors.c.seq.desc()).limit(1)


def _row(event: SecurityEvent) -> dict[str, Any]:
    return {
        **{name: getattr(event, name) for name in SecurityEvent.__slots__},
        "payload": {**event.payload},
    }


def _event(row: Row[Any]) -> SecurityEvent:
    return SecurityEvent(*row[: len(_FIELDS)])


_CHAIN: Final = ChainTable(
    table, _EVENTS.order_by(table.c.seq.desc()).limit(1), HEAD, _row, _event, "chain of security"
    " events",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SecurityEventRepository:
    """Security events by a sequence number without gaps."""

    connection: AsyncConnection

    async def append(self, *drafts: SecurityDraft) -> tuple[SecurityEvent, ...]:
        """Appends events in the transaction of the change that they record.

        Other appends wait for its end, so call it late. Raises UnavailableError(history_tampered)
        if the newest event differs from the stored head.
        """
        await _CHAIN.lock(self.connection)
        return await _CHAIN.append(self.connection, unsealed_security_events(drafts))

    async def append_bursts(self, *bursts: Burst) -> None:
        """Appends bursts of failed authentications, and stores those that are not over as a fact.

        The lock of the chain orders the changes of the fact.
        """
        await self.append(*(_burst_draft(burst) for burst in bursts))
        facts = KeyValueRepository(self.connection)
        newest = max(burst.occurred_at for burst in bursts)
        await facts.put(BURSTS, merge_bursts(await facts.get(BURSTS), bursts, newest))

    async def bursts(self) -> tuple[Burst, ...]:
        """Newest burst of each subject; some may be over."""
        return read_bursts(await KeyValueRepository(self.connection).get(BURSTS))

    async def page(
        self,
        before: tuple[datetime, int] | None,
        limit: int,
        *,
        principal: str | None = None,
        kind: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[SecurityEvent, ...]:
        """Events before a time and number, newest first; `since` included, `until` not."""
        wanted = _EVENTS.order_by(table.c.occurred_at.desc(), table.c.seq.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(tuple_(table.c.occurred_at, table.c.seq) < before)
        if principal is not None:
            wanted = wanted.where(table.c.principal == principal)
        if kind is not None:
            wanted = wanted.where(table.c.kind == kind)
        if since is not None:
            wanted = wanted.where(table.c.occurred_at >= since)
        if until is not None:
            wanted = wanted.where(table.c.occurred_at < until)
        return tuple(_event(row) for row in await self.connection.execute(wanted))

    async def batches(self) -> AsyncIterator[tuple[SecurityEvent, ...]]:
        """All events in order of their numbers."""
        seq = 0
        while True:
            wanted = _EVENTS.where(table.c.seq > seq).order_by(table.c.seq).limit(_BATCH)
            rows = (await self.connection.execute(wanted)).all()
            if not rows:
                return
            events = tuple(map(_event, rows))
            yield events
            seq = events[-1].seq

    async def anchor(self) -> SecurityAnchor | None:
        """End of the deleted part of the chain; None while nothing was deleted."""
        row = (await self.connection.execute(_ANCHOR)).first()
        return None if row is None else SecurityAnchor(row.seq, row.hash)

    async def head(self) -> ChainHead | None:
        """Stored end of the chain; None before the first event."""
        return ChainHead.read(await KeyValueRepository(self.connection).get(HEAD))

    async def delete_old(self, before: datetime, most: int, now: datetime) -> int:
        """Deletes the oldest events: those before a time, and all but the newest `most`.

        The last deleted event becomes the anchor, and an event of the chain names it. A deletion
        of younger events, by number, is also a fact. Deletes at most DELETED_AT_ONCE events;
        returns their number.
        """
        await _CHAIN.lock(self.connection)
        anchor = await self.anchor()
        start = 0 if anchor is None else anchor.seq
        newest = (await self.connection.execute(select(func.max(table.c.seq)))).scalar()
        recent = select(func.min(table.c.seq)).where(table.c.occurred_at >= before)
        oldest = (await self.connection.execute(recent)).scalar()
        if newest is None:
            return 0
        by_age = newest if oldest is None else oldest - 1
        # One less than `most`, for the event of the deletion; the next sweep then finds nothing.
        by_number = newest + 1 - most if newest - start > most else start
        bound = min(max(by_age, by_number), start + DELETED_AT_ONCE)
        last = (await self.connection.execute(_EVENTS.where(table.c.seq == bound))).first()
        if bound <= start or last is None:
            return 0
        reached, is_by_number = SecurityAnchor(bound, _event(last).hash), bound > by_age
        await self.connection.execute(
            anchors.insert(), {"seq": reached.seq, "hash": reached.hash, "anchored_at": now}
        )
        await self.append(
            SecurityDraft(
                SecurityEventKind.EVENTS_DELETED,
                SYSTEM,
                now,
                code="number" if is_by_number else "age",
                count=bound - start,
                payload=reached.payload(),
            )
        )
        if is_by_number:
            await KeyValueRepository(self.connection).put(TRIMMED, instant_text(now))
        deleted = await self.connection.execute(table.delete().where(table.c.seq <= bound))
        return deleted.rowcount

    async def trimmed_at(self) -> datetime | None:
        """Time of the last deletion by number; None if there was none."""
        stored = await KeyValueRepository(self.connection).get(TRIMMED)
        return None if stored is None else datetime.fromisoformat(stored)


def _burst_draft(burst: Burst) -> SecurityDraft:
    return SecurityDraft(
        SecurityEventKind.AUTHENTICATION_BURST,
        SYSTEM,
        burst.occurred_at,
        subject=burst.subject,
        count=burst.failures,
    )
