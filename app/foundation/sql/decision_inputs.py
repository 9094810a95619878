"""Stored inputs and outputs of decisions, from which each can be replayed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import add_if_new, upsert
from app.foundation.sql.tables import decision_inputs as table


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """One decision: version of its algorithm and of the code, and its packed document."""

    kind: str
    decision_id: str
    algorithm: int
    code_version: str
    decided_at: datetime
    document: bytes


@dataclass(frozen=True, slots=True)
class DecisionInputRepository:
    """Inputs of decisions by kind and id; a decision is stored once."""

    connection: AsyncConnection

    async def add(self, decision: StoredDecision) -> None:
        """Stores a decision; one that is stored already stays as it is."""
        await self.connection.execute(add_if_new(self.connection, table), _row(decision))

    async def put(self, decision: StoredDecision) -> None:
        """Stores a decision in place of an earlier one."""
        await self.connection.execute(upsert(self.connection, table), _row(decision))

    async def get(self, kind: str, decision_id: str) -> StoredDecision | None:
        wanted = select(table).where(table.c.kind == kind, table.c.decision_id == decision_id)
        row = (await self.connection.execute(wanted)).first()
        return None if row is None else StoredDecision(**row._asdict())

    async def bytes_since(self, since: datetime) -> dict[str, int]:
        """Returns the stored bytes of decisions at or after `since`, by kind."""
        size = func.sum(func.length(table.c.document))
        wanted = (
            select(table.c.kind, size).where(table.c.decided_at >= since).group_by(table.c.kind)
        )
        return {kind: int(total) for kind, total in await self.connection.execute(wanted)}

    async def delete_before(self, before: datetime) -> int:
        """Deletes decisions before that time; returns their number."""
        gone = await self.connection.execute(delete(table).where(table.c.decided_at < before))
        return gone.rowcount


def _row(decision: StoredDecision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in StoredDecision.__slots__}
