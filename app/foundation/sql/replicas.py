"""Who shares the database and was heard of when, by the database's own clock."""

from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.leases import now_ms
from app.foundation.sql.statements import upsert
from app.foundation.sql.tables import job_executors as table


@dataclass(frozen=True, slots=True)
class Makeup:
    """What a process runs with; None where it does not say."""

    role: str | None = None
    version: str | None = None
    settings_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that was heard of so many milliseconds ago."""

    executor_id: str
    silent_ms: int
    makeup: Makeup


@dataclass(frozen=True, slots=True)
class ReplicaRepository:
    """The heartbeats of all processes."""

    connection: AsyncConnection

    async def beat(self, executor_id: str, makeup: Makeup | None = None) -> None:
        """Notes that this one is alive now, and what it runs with."""
        said = makeup or Makeup()
        row = {
            "executor_id": executor_id,
            "seen_ms": now_ms(self.connection),
            "role": said.role,
            "version": said.version,
            "settings_hash": said.settings_hash,
        }
        await self.connection.execute(upsert(self.connection, table).values(**row))

    async def peers(self) -> tuple[Peer, ...]:
        """Everybody who has not been buried, by name."""
        rows = await self.connection.execute(
            select(
                table.c.executor_id,
                now_ms(self.connection) - table.c.seen_ms,
                table.c.role,
                table.c.version,
                table.c.settings_hash,
            ).order_by(table.c.executor_id)
        )
        return tuple(Peer(row[0], row[1], Makeup(*row[2:])) for row in rows)

    async def known(self) -> frozenset[str]:
        """Everybody who was ever heard of and has not been buried."""
        return frozenset(await self.connection.scalars(select(table.c.executor_id)))

    async def silent(self, for_ms: int) -> tuple[str, ...]:
        """Those not heard of for that long, by name."""
        late = table.c.seen_ms < now_ms(self.connection) - for_ms
        found = select(table.c.executor_id).where(late).order_by(table.c.executor_id)
        return tuple(await self.connection.scalars(found))

    async def bury(self, executor_id: str, for_ms: int) -> None:
        """Forgets one, unless it was heard of again meanwhile."""
        late = table.c.seen_ms < now_ms(self.connection) - for_ms
        await self.connection.execute(delete(table).where(table.c.executor_id == executor_id, late))

    async def leave(self, executor_id: str) -> None:
        """It says itself that it goes; nobody has to find it dead."""
        await self.connection.execute(delete(table).where(table.c.executor_id == executor_id))
