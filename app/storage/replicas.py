"""Who shares the database and was heard of when, by the database's own clock."""

from dataclasses import dataclass

from sqlalchemy import BigInteger, ColumnElement, cast, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.tables import job_executors as table
from app.storage.upsert import upsert


@dataclass(frozen=True, slots=True)
class ReplicaRepository:
    """The heartbeats of all processes."""

    connection: AsyncConnection

    async def beat(self, executor_id: str) -> None:
        """Notes that this one is alive now."""
        row = {"executor_id": executor_id, "seen_ms": self._now_ms()}
        await self.connection.execute(upsert(self.connection, table).values(**row))

    async def known(self) -> frozenset[str]:
        """Everybody who was ever heard of and has not been buried."""
        return frozenset(await self.connection.scalars(select(table.c.executor_id)))

    async def silent(self, for_ms: int) -> tuple[str, ...]:
        """Those not heard of for that long, by name."""
        late = table.c.seen_ms < self._now_ms() - for_ms
        found = select(table.c.executor_id).where(late).order_by(table.c.executor_id)
        return tuple(await self.connection.scalars(found))

    async def bury(self, executor_id: str, for_ms: int) -> None:
        """Forgets one, unless it was heard of again meanwhile."""
        late = table.c.seen_ms < self._now_ms() - for_ms
        await self.connection.execute(delete(table).where(table.c.executor_id == executor_id, late))

    def _now_ms(self) -> ColumnElement[int]:
        if self.connection.dialect.name == "sqlite":
            since_1970 = (func.julianday("now") - 2_440_587.5) * 86_400_000
        else:
            # Not now(): that is when the transaction began.
            since_1970 = func.extract("epoch", func.clock_timestamp()) * 1000
        return cast(since_1970, BigInteger)
