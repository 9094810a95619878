"""INSERT with ON CONFLICT, which both databases know but SQLAlchemy spells once for each."""

from typing import Any, cast

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def insert(connection: AsyncConnection, table: Table) -> postgresql.Insert:
    """An INSERT that can handle conflicts, for the database behind `connection`."""
    if connection.dialect.name == "sqlite":
        # Both classes have the same methods; the cast saves a union everywhere else.
        return cast("postgresql.Insert", sqlite.insert(table))
    return postgresql.insert(table)


def upsert(connection: AsyncConnection, table: Table) -> postgresql.Insert:
    """INSERT that overwrites every other column of a row with the same primary key."""
    statement = insert(connection, table)
    keys = [column.name for column in table.primary_key]
    changed: dict[str, Any] = {
        column.name: statement.excluded[column.name]
        for column in table.columns
        if column.name not in keys
    }
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)
