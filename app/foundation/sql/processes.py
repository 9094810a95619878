"""Heartbeats of the processes that share the database, by the clock of the database."""

from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.leases import now_ms
from app.foundation.sql.statements import upsert
from app.foundation.sql.tables import job_executors as table


@dataclass(frozen=True, slots=True)
class ProcessProfile:
    """Role, code version and settings hash of a process; None where it states none."""

    role: str | None = None
    version: str | None = None
    settings_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """One process and the milliseconds since its last heartbeat."""

    executor_id: str
    silent_ms: int
    profile: ProcessProfile


@dataclass(frozen=True, slots=True)
class ProcessRepository:
    """Heartbeats of all processes."""

    connection: AsyncConnection

    async def record_heartbeat(
        self, executor_id: str, profile: ProcessProfile | None = None
    ) -> None:
        """Stores the heartbeat and the profile of a process."""
        stated = profile or ProcessProfile()
        row = {
            "executor_id": executor_id,
            "seen_ms": now_ms(self.connection),
            "role": stated.role,
            "version": stated.version,
            "settings_hash": stated.settings_hash,
        }
        await self.connection.execute(upsert(self.connection, table).values(**row))

    async def list_processes(self) -> tuple[Process, ...]:
        """Returns the known processes by name."""
        rows = await self.connection.execute(
            select(
                table.c.executor_id,
                now_ms(self.connection) - table.c.seen_ms,
                table.c.role,
                table.c.version,
                table.c.settings_hash,
            ).order_by(table.c.executor_id)
        )
        return tuple(Process(row[0], row[1], ProcessProfile(*row[2:])) for row in rows)

    async def executor_ids(self) -> frozenset[str]:
        """Returns the names of the known processes."""
        return frozenset(await self.connection.scalars(select(table.c.executor_id)))

    async def silent_executors(self, silent_for_ms: int) -> tuple[str, ...]:
        """Returns the processes without a heartbeat for that long, by name."""
        is_silent = table.c.seen_ms < now_ms(self.connection) - silent_for_ms
        query = select(table.c.executor_id).where(is_silent).order_by(table.c.executor_id)
        return tuple(await self.connection.scalars(query))

    async def delete_silent(self, executor_id: str, silent_for_ms: int) -> None:
        """Deletes a process unless it has sent a heartbeat meanwhile."""
        is_silent = table.c.seen_ms < now_ms(self.connection) - silent_for_ms
        await self.connection.execute(
            delete(table).where(table.c.executor_id == executor_id, is_silent)
        )

    async def delete(self, executor_id: str) -> None:
        """Deletes a process that ends in order."""
        await self.connection.execute(delete(table).where(table.c.executor_id == executor_id))
