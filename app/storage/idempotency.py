"""Requests that were begun under a key, and the answers that they got."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.tables import idempotency_keys as table
from app.storage.upsert import insert

LOCK: Final = timedelta(seconds=30)  # so long may one attempt take before another takes over


class ClaimOutcome(Enum):
    """What a key means for the request that carries it."""

    CLAIMED = "claimed"  # carry it out, then `complete` it in the same transaction
    REPLAY = "replay"  # it was carried out: give `answer` again
    IN_PROGRESS = "in_progress"  # somebody else is at it
    REUSED = "reused"  # the key belongs to another request


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer to be given again byte for byte."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """`answer` is there for REPLAY only."""

    outcome: ClaimOutcome
    answer: StoredAnswer | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyRepository:
    """Keys by principal."""

    connection: AsyncConnection

    async def claim(
        self, principal: str, key: str, route: str, fingerprint: str, now: datetime
    ) -> Claim:
        """Takes the key for one request, in a short transaction of its own.

        A claim whose holder vanished is taken over once its lock has run out.
        """
        row = {
            "principal": principal,
            "key": key,
            "route": route,
            "fingerprint": fingerprint,
            "state": "running",
            "locked_until": now + LOCK,
            "created_at": now,
        }
        new = insert(self.connection, table).on_conflict_do_nothing()
        if (await self.connection.execute(new, row)).rowcount == 1:
            return Claim(ClaimOutcome.CLAIMED)
        known = (
            await self.connection.execute(
                select(table).where(table.c.principal == principal, table.c.key == key)
            )
        ).one()
        if (known.route, known.fingerprint) != (route, fingerprint):
            return Claim(ClaimOutcome.REUSED)
        if known.state == "done":
            answer = StoredAnswer(known.status, known.headers, known.body)
            return Claim(ClaimOutcome.REPLAY, answer)
        taken = await self.connection.execute(
            table.update()
            .where(
                table.c.principal == principal,
                table.c.key == key,
                table.c.state == "running",
                table.c.locked_until <= now,
            )
            .values(locked_until=now + LOCK)
        )
        return Claim(ClaimOutcome.CLAIMED if taken.rowcount == 1 else ClaimOutcome.IN_PROGRESS)

    async def complete(self, principal: str, key: str, answer: StoredAnswer) -> None:
        """Keeps the answer, in the transaction of the effect it tells of."""
        await self.connection.execute(
            table.update()
            .where(table.c.principal == principal, table.c.key == key)
            .values(state="done", status=answer.status, headers=answer.headers, body=answer.body)
        )

    async def answer(self, principal: str, key: str) -> StoredAnswer | None:
        """The answer that is kept under the key; None while there is none."""
        wanted = select(table).where(
            table.c.principal == principal, table.c.key == key, table.c.state == "done"
        )
        known = (await self.connection.execute(wanted)).first()
        return None if known is None else StoredAnswer(known.status, known.headers, known.body)

    async def release(self, principal: str, key: str) -> None:
        """Gives a key free whose request had no effect."""
        await self.connection.execute(
            table.delete().where(
                table.c.principal == principal, table.c.key == key, table.c.state == "running"
            )
        )

    async def forget(self, before: datetime) -> int:
        """Deletes keys first seen before `before`; how many."""
        gone = await self.connection.execute(table.delete().where(table.c.created_at < before))
        return gone.rowcount
