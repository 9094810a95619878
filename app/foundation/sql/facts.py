"""Single facts about the service that outlive it, by name."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import add_if_new, upsert
from app.foundation.sql.tables import service_facts

# Made once: putting a statement together takes as long as carrying it out.
_ONE: Final = select(service_facts.c.value).where(service_facts.c.key == bindparam("wanted"))
_LOCKED: Final = _ONE.with_for_update()
_SEVERAL: Final = select(service_facts.c.key, service_facts.c.value).where(
    service_facts.c.key.in_(bindparam("wanted", expanding=True))
)


@dataclass(frozen=True, slots=True)
class FactRepository:
    """Named JSON values."""

    connection: AsyncConnection

    async def get(self, key: str) -> Any:
        """The value stored under `key`; None if there is none."""
        return (await self.connection.execute(_ONE, {"wanted": key})).scalar()

    async def get_locked(self, key: str, default: Any) -> Any:
        """The value under `key`, stored as `default` if new; locked until the transaction ends."""
        statement = add_if_new(self.connection, service_facts)
        await self.connection.execute(statement, {"key": key, "value": default})
        return (await self.connection.execute(_LOCKED, {"wanted": key})).scalar()

    async def several(self, *keys: str) -> dict[str, Any]:
        """Those that are stored, by key."""
        found = await self.connection.execute(_SEVERAL, {"wanted": keys})
        return {row.key: row.value for row in found}

    async def put(self, key: str, value: Any) -> None:
        await self.connection.execute(
            upsert(self.connection, service_facts),
            {"key": key, "value": value},
        )

    async def keep(self, key: str, value: Any) -> Any:
        """Stores `value` unless there is one already; the one that stays is returned."""
        statement = add_if_new(self.connection, service_facts)
        await self.connection.execute(statement, {"key": key, "value": value})
        return await self.get(key)
