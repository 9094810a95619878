"""Stores users and sessions, and the revision by which processes notice a change of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import ColumnElement, Row, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.errors import Code, NotFoundError
from app.foundation.principals import Role, Scope
from app.foundation.sql.key_value import RevisedRepository
from app.security.domain.keys import order_scopes
from app.security.domain.people import Session, User
from app.security.storage.tables import sessions, users

_USERS: Final = select(users).order_by(users.c.name)
_SESSIONS: Final = select(sessions).order_by(sessions.c.created_at, sessions.c.id)


@dataclass(frozen=True, slots=True)
class UserRepository(RevisedRepository):
    """Users; the revision covers sessions, too, apart from the times of their last use."""

    REVISION: ClassVar[str] = "people_revision"

    async def all(self) -> tuple[User, ...]:
        """All users by name, also disabled ones."""
        return tuple(_user(row) for row in await self.connection.execute(_USERS))

    async def get(self, user_id: str) -> User:
        """Raises NotFoundError."""
        return await self._one(users.c.id == user_id, "There is no user with this id.")

    async def named(self, name: str) -> User | None:
        """User of that name; None if there is none."""
        row = (await self.connection.execute(_USERS.where(users.c.name == name))).first()
        return None if row is None else _user(row)

    async def add(self, user: User) -> None:
        await self.connection.execute(users.insert(), _user_values(user))

    async def put(self, user: User) -> None:
        """Replaces the stored values of the user."""
        values = _user_values(user)
        await self.connection.execute(
            users.update().where(users.c.id == values.pop("id")).values(values)
        )

    async def rehash(self, user_id: str, old: str, new: str) -> None:
        """Replaces a hash of the same password, unless the password has changed."""
        await self.connection.execute(
            users.update()
            .where(users.c.id == user_id, users.c.password_hash == old)
            .values(password_hash=new)
        )

    async def _one(self, condition: ColumnElement[bool], missing: str) -> User:
        row = (await self.connection.execute(_USERS.where(condition))).first()
        if row is None:
            raise NotFoundError(Code.NOT_FOUND, missing)
        return _user(row)


@dataclass(frozen=True, slots=True)
class SessionRepository:
    """Sessions; one that has ended is deleted."""

    connection: AsyncConnection

    async def all(self) -> tuple[Session, ...]:
        """All sessions, the oldest first, also those that have expired meanwhile."""
        return tuple(_session(row) for row in await self.connection.execute(_SESSIONS))

    async def last_uses(self) -> dict[str, datetime]:
        """Stored time of the last use by session."""
        rows = await self.connection.execute(select(sessions.c.id, sessions.c.last_used_at))
        return {row.id: row.last_used_at for row in rows}

    async def add(self, session: Session) -> None:
        row = {one.name: getattr(session, one.name) for one in fields(session)}
        await self.connection.execute(sessions.insert(), row)

    async def delete(self, session_ids: Sequence[str]) -> int:
        """Ends those that exist; returns their number."""
        ended = await self.connection.execute(
            sessions.delete().where(sessions.c.id.in_(session_ids))
        )
        return ended.rowcount

    async def delete_of_user(self, user_id: str) -> tuple[str, ...]:
        """Ends all sessions of a user; returns their ids."""
        wanted = select(sessions.c.id).where(sessions.c.user_id == user_id).order_by(sessions.c.id)
        found = tuple((await self.connection.execute(wanted)).scalars())
        await self.delete(found)
        return found

    async def delete_ended(self, now: datetime, idle_since: datetime) -> None:
        """Deletes those past their end, and those whose last use is not after `idle_since`."""
        is_over = or_(sessions.c.expires_at <= now, sessions.c.last_used_at <= idle_since)
        await self.connection.execute(sessions.delete().where(is_over))

    async def used(self, session_id: str, at: datetime) -> None:
        """Stores the time of the last use; an earlier one than the stored one is passed over."""
        await self.connection.execute(
            sessions.update()
            .where(sessions.c.id == session_id, sessions.c.last_used_at < at)
            .values(last_used_at=at)
        )


def _user_values(user: User) -> dict[str, Any]:
    row = {one.name: getattr(user, one.name) for one in fields(user)}
    return row | {"role": user.role.value, "scopes": order_scopes(user.scopes)}


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        password_hash=row.password_hash,
        created_by=row.created_by,
        created_at=row.created_at,
        password_changed_at=row.password_changed_at,
        disabled_at=row.disabled_at,
    )


def _session(row: Row[Any]) -> Session:
    return Session(**{one.name: getattr(row, one.name) for one in fields(Session)})
