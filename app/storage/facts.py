"""Single facts about the service that outlive it, by name."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.tables import service_facts
from app.storage.upsert import insert, upsert


@dataclass(frozen=True, slots=True)
class FactRepository:
    """Named JSON values."""

    connection: AsyncConnection

    async def get(self, key: str) -> Any:
        """The value stored under `key`; None if there is none."""
        statement = select(service_facts.c.value).where(service_facts.c.key == key)
        return (await self.connection.execute(statement)).scalar()

    async def put(self, key: str, value: Any) -> None:
        await self.connection.execute(
            upsert(self.connection, service_facts), {"key": key, "value": value}
        )

    async def keep(self, key: str, value: Any) -> Any:
        """Stores `value` unless there is one already; the one that stays is returned."""
        statement = insert(self.connection, service_facts).on_conflict_do_nothing()
        await self.connection.execute(statement, {"key": key, "value": value})
        return await self.get(key)
