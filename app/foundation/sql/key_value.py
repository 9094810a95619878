"""Key-value store for single values of the service, such as its data source."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import add_if_new, upsert
from app.foundation.sql.tables import service_facts

# Built once: building a statement takes as long as running it.
_GET: Final = select(service_facts.c.value).where(service_facts.c.key == bindparam("for_key"))
_GET_LOCKED: Final = _GET.with_for_update()
_GET_MANY: Final = select(service_facts.c.key, service_facts.c.value).where(
    service_facts.c.key.in_(bindparam("keys", expanding=True))
)


@dataclass(frozen=True, slots=True)
class KeyValueRepository:
    """JSON values by key."""

    connection: AsyncConnection

    async def get(self, key: str) -> Any:
        """Returns the value of `key`; None if there is none."""
        return (await self.connection.execute(_GET, {"for_key": key})).scalar()

    async def get_locked(self, key: str, default: Any) -> Any:
        """Returns the value, locked until the transaction ends; stores `default` if absent."""
        statement = add_if_new(self.connection, service_facts)
        await self.connection.execute(statement, {"key": key, "value": default})
        return (await self.connection.execute(_GET_LOCKED, {"for_key": key})).scalar()

    async def get_many(self, *keys: str) -> dict[str, Any]:
        """Returns the stored values by key."""
        rows = await self.connection.execute(_GET_MANY, {"keys": keys})
        return {row.key: row.value for row in rows}

    async def put(self, key: str, value: Any) -> None:
        await self.connection.execute(
            upsert(self.connection, service_facts),
            {"key": key, "value": value},
        )

    async def put_if_absent(self, key: str, value: Any) -> Any:
        """Stores `value` unless the key exists; returns the stored value."""
        statement = add_if_new(self.connection, service_facts)
        await self.connection.execute(statement, {"key": key, "value": value})
        return await self.get(key)


@dataclass(frozen=True, slots=True)
class RevisedRepository:
    """Repository whose changes renew a revision, by which other processes notice them."""

    REVISION: ClassVar[str]  # key of the stored revision
    connection: AsyncConnection

    async def revision(self) -> str | None:
        """Text that changes with every noticed change; None before the first one."""
        stored = await KeyValueRepository(self.connection).get(self.REVISION)
        return None if stored is None else str(stored)

    async def renew_revision(self, revision: str) -> None:
        await KeyValueRepository(self.connection).put(self.REVISION, revision)

    async def lock(self) -> None:
        """Makes other changes wait until the end of the transaction."""
        await KeyValueRepository(self.connection).get_locked(self.REVISION, "")
