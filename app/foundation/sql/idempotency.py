"""Idempotency keys of requests, with the stored responses."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import add_if_new
from app.foundation.sql.tables import idempotency_keys as table

LOCK: Final = timedelta(seconds=30)  # time limit of an attempt before another may take over
MAX_KEYS: Final = 10_000  # per principal, until `forget` deletes old ones
_TRIES: Final = 3  # to claim a key that other requests claim and release meanwhile
# Built once: building a statement takes as long as running it.
_OWN_KEY: Final = (
    table.c.principal == bindparam("for_principal"),
    table.c.key == bindparam("for_key"),
)
_RUNNING: Final = (*_OWN_KEY, table.c.state == "running")
_KNOWN: Final = select(table).where(*_OWN_KEY)
_BEYOND_CAP: Final = (  # answered by the index of the primary key alone
    select(table.c.principal)
    .where(table.c.principal == bindparam("for_principal"))
    .limit(1)
    .offset(bindparam("cap"))
)
_TAKE_OVER: Final = (
    table.update()
    .where(*_RUNNING, table.c.locked_until <= bindparam("now"))
    .values(locked_until=bindparam("locked_until"))
)
_COMPLETE: Final = (
    table.update()
    .where(*_OWN_KEY)
    .values(
        state="done",
        **{name: bindparam(name) for name in ("status", "headers", "body")},
    )
)
_LOCK_ROW: Final = table.update().where(*_RUNNING).values(state="running")
_RELEASE: Final = table.delete().where(*_RUNNING)


class ClaimOutcome(Enum):
    """State of a key for the request that carries it."""

    CLAIMED = "claimed"  # run the command, then `complete` it in the same transaction
    REPLAY = "replay"  # the command has run: replay `answer`
    IN_PROGRESS = "in_progress"  # another request is running the command
    REUSED = "reused"  # the key belongs to another request
    OVER_CAP = "over_cap"  # the principal has too many keys


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """Stored response, to be sent again byte for byte."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """Result of claiming a key; `answer` is set for REPLAY only."""

    outcome: ClaimOutcome
    answer: ResponseRow | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyRepository:
    """Idempotency keys by principal."""

    connection: AsyncConnection

    async def claim(
        self, principal: str, key: str, route: str, fingerprint: str, now: datetime
    ) -> KeyClaim:
        """Claims the key for one request; waits while another transaction claims it.

        A claim whose owner vanished is taken over once its lock has expired.
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
        own_key = {"for_principal": principal, "for_key": key}
        known = None
        # A refused request releases the key, perhaps between the two statements.
        for _ in range(_TRIES):
            if (await self.connection.execute(new, row)).rowcount == 1:
                if await self._is_over_cap(principal):
                    await self.release(principal, key)
                    return KeyClaim(ClaimOutcome.OVER_CAP)
                return KeyClaim(ClaimOutcome.CLAIMED)
            known = (await self.connection.execute(_KNOWN, own_key)).one_or_none()
            if known is not None:
                break
        if known is None:
            return KeyClaim(ClaimOutcome.IN_PROGRESS)
        if (known.route, known.fingerprint) != (route, fingerprint):
            return KeyClaim(ClaimOutcome.REUSED)
        if known.state == "done":
            answer = ResponseRow(known.status, known.headers, known.body)
            return KeyClaim(ClaimOutcome.REPLAY, answer)
        takeover = await self.connection.execute(
            _TAKE_OVER, {**own_key, "now": now, "locked_until": now + LOCK}
        )
        return KeyClaim(
            ClaimOutcome.CLAIMED if takeover.rowcount == 1 else ClaimOutcome.IN_PROGRESS
        )

    async def _is_over_cap(self, principal: str) -> bool:
        beyond = await self.connection.execute(
            _BEYOND_CAP, {"for_principal": principal, "cap": MAX_KEYS}
        )
        return beyond.first() is not None

    async def complete(self, principal: str, key: str, answer: ResponseRow) -> None:
        """Stores the response, in the transaction of the change."""
        await self.connection.execute(
            _COMPLETE,
            {
                "for_principal": principal,
                "for_key": key,
                "status": answer.status,
                "headers": answer.headers,
                "body": answer.body,
            },
        )

    async def answer(self, principal: str, key: str) -> ResponseRow | None:
        """Returns the response stored under the key; None while there is none."""
        own_key = {"for_principal": principal, "for_key": key}
        known = (await self.connection.execute(_KNOWN, own_key)).first()
        if known is None or known.state != "done":
            return None
        return ResponseRow(known.status, known.headers, known.body)

    async def release(self, principal: str, key: str) -> None:
        """Deletes the claim of a request that had no effect."""
        await self.connection.execute(_RELEASE, {"for_principal": principal, "for_key": key})

    async def lock(self, principal: str, key: str) -> None:
        """Locks the row of a running claim until the end of the transaction."""
        await self.connection.execute(_LOCK_ROW, {"for_principal": principal, "for_key": key})

    async def forget(self, before: datetime) -> int:
        """Deletes keys first seen before `before`; returns their number."""
        deleted = await self.connection.execute(table.delete().where(table.c.created_at < before))
        return deleted.rowcount
