"""Stores API keys and the revision by which processes notice a change of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import Row, exists, select

from app.foundation.errors import Code, NotFoundError
from app.foundation.principals import Role, Scope
from app.foundation.sql.key_value import RevisedRepository
from app.security.domain.keys import ApiKey, order_scopes
from app.security.storage.tables import api_keys as table

_ALL: Final = select(table).order_by(table.c.name, table.c.created_at, table.c.id)
_ANY: Final = select(exists().where(table.c.id.is_not(None)))


@dataclass(frozen=True, slots=True)
class ApiKeyRepository(RevisedRepository):
    """API keys. Every change but the time of the last use gets a new revision."""

    REVISION: ClassVar[str] = "api_keys_revision"

    async def has_any(self) -> bool:
        """True once a key was created, whatever became of it."""
        return bool((await self.connection.execute(_ANY)).scalar())

    async def all(self) -> tuple[ApiKey, ...]:
        """All keys by name, also expired and revoked ones."""
        return tuple(_key(row) for row in await self.connection.execute(_ALL))

    async def get(self, key_id: str) -> ApiKey:
        """Raises NotFoundError."""
        wanted = select(table).where(table.c.id == key_id)
        row = (await self.connection.execute(wanted)).first()
        if row is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no key with this id.")
        return _key(row)

    async def named(self, name: str) -> tuple[ApiKey, ...]:
        """Keys of that name, the oldest first."""
        rows = await self.connection.execute(_ALL.where(table.c.name == name))
        return tuple(_key(row) for row in rows)

    async def add(self, key: ApiKey) -> None:
        row = {one.name: getattr(key, one.name) for one in fields(key)}
        row |= {
            "role": None if key.role is None else key.role.value,
            "scopes": order_scopes(key.scopes),
            "sources": sorted(key.sources),
            "allow": list(key.allow),
        }
        await self.connection.execute(table.insert(), row)

    async def revoke(self, key_ids: Sequence[str], at: datetime) -> None:
        """Revokes those that are not revoked yet."""
        await self.connection.execute(
            table.update()
            .where(table.c.id.in_(key_ids), table.c.revoked_at.is_(None))
            .values(revoked_at=at)
        )

    async def expire(self, key_ids: Sequence[str], at: datetime) -> None:
        """Lets keys expire at `at`; one that expires earlier is not prolonged."""
        later = table.c.expires_at.is_(None) | (table.c.expires_at > at)
        await self.connection.execute(
            table.update().where(table.c.id.in_(key_ids), later).values(expires_at=at)
        )

    async def used(self, key_id: str, at: datetime) -> None:
        """Stores the time of the last use."""
        await self.connection.execute(
            table.update().where(table.c.id == key_id).values(last_used_at=at)
        )

    async def rehash(self, key_id: str, old: str, new: str, pepper_id: str) -> None:
        """Replaces the hash of a key by one under another pepper, unless it has changed."""
        await self.connection.execute(
            table.update()
            .where(table.c.id == key_id, table.c.hash == old)
            .values(hash=new, pepper_id=pepper_id)
        )


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        hash=row.hash,
        pepper_id=row.pepper_id,
        role=None if row.role is None else Role(row.role),
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        sources=frozenset(row.sources),
        allow=tuple(row.allow),
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
