"""Requests that were begun under a key, and the answers that they got."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import add_if_new
from app.foundation.sql.tables import idempotency_keys as table

LOCK: Final = timedelta(seconds=30)  # so long may one attempt take before another takes over
_TRIES: Final = 3  # to take a key that others take and give free meanwhile
# Made once: putting a statement together takes as long as carrying it out.
_MINE: Final = (table.c.principal == bindparam("whose"), table.c.key == bindparam("wanted"))
_RUNNING: Final = (*_MINE, table.c.state == "running")
_KNOWN: Final = select(table).where(*_MINE)
_TAKE_OVER: Final = (
    table.update()
    .where(*_RUNNING, table.c.locked_until <= bindparam("now"))
    .values(locked_until=bindparam("locked_until"))
)
_COMPLETE: Final = (
    table.update()
    .where(*_MINE)
    .values(
        state="done",
        **{name: bindparam(name) for name in ("status", "headers", "body")},
    )
)
_RELEASE: Final = table.delete().where(*_RUNNING)


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
        new = add_if_new(self.connection, table)
        mine = {"whose": principal, "wanted": key}
        known = None
        # One that is refused gives the key free, and may do so between our two looks at it.
        for _ in range(_TRIES):
            if (await self.connection.execute(new, row)).rowcount == 1:
                return Claim(ClaimOutcome.CLAIMED)
            known = (await self.connection.execute(_KNOWN, mine)).one_or_none()
            if known is not None:
                break
        if known is None:
            return Claim(ClaimOutcome.IN_PROGRESS)
        if (known.route, known.fingerprint) != (route, fingerprint):
            return Claim(ClaimOutcome.REUSED)
        if known.state == "done":
            answer = StoredAnswer(known.status, known.headers, known.body)
            return Claim(ClaimOutcome.REPLAY, answer)
        taken = await self.connection.execute(
            _TAKE_OVER, {**mine, "now": now, "locked_until": now + LOCK}
        )
        return Claim(ClaimOutcome.CLAIMED if taken.rowcount == 1 else ClaimOutcome.IN_PROGRESS)

    async def complete(self, principal: str, key: str, answer: StoredAnswer) -> None:
        """Keeps the answer, in the transaction of the effect it tells of."""
        await self.connection.execute(
            _COMPLETE,
            {
                "whose": principal,
                "wanted": key,
                "status": answer.status,
                "headers": answer.headers,
                "body": answer.body,
            },
        )

    async def answer(self, principal: str, key: str) -> StoredAnswer | None:
        """The answer that is kept under the key; None while there is none."""
        mine = {"whose": principal, "wanted": key}
        known = (await self.connection.execute(_KNOWN, mine)).first()
        if known is None or known.state != "done":
            return None
        return StoredAnswer(known.status, known.headers, known.body)

    async def release(self, principal: str, key: str) -> None:
        """Gives a key free whose request had no effect."""
        await self.connection.execute(_RELEASE, {"whose": principal, "wanted": key})

    async def forget(self, before: datetime) -> int:
        """Deletes keys first seen before `before`; how many."""
        gone = await self.connection.execute(table.delete().where(table.c.created_at < before))
        return gone.rowcount
