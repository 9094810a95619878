"""INSERT with ON CONFLICT for both dialects, and bulk inserts."""

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from sqlalchemy import ARRAY, Insert, Table, bindparam, func, select, type_coerce
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def insert(connection: AsyncConnection, table: Table) -> postgresql.Insert:
    """Returns an INSERT with conflict clauses for the dialect of `connection`."""
    return insert_into(connection.dialect.name, table)


def add_if_new(connection: AsyncConnection, table: Table) -> postgresql.Insert:
    """Returns an INSERT that skips existing keys; `rowcount` is 0 for a skipped row."""
    return _add_if_new(connection.dialect.name, table)


def upsert(connection: AsyncConnection, table: Table) -> postgresql.Insert:
    """Returns an INSERT that overwrites every other column of a row with the same primary key."""
    return _upsert(connection.dialect.name, table)


def insert_into(dialect: str, table: Table) -> postgresql.Insert:
    """Returns an INSERT with conflict clauses for a dialect, for a statement that is cached."""
    if dialect == "sqlite":
        # Both classes have the same methods; the cast avoids a union in all callers.
        return cast("postgresql.Insert", sqlite.insert(table))
    return postgresql.insert(table)


# Cached: building a statement takes as long as running it.
@cache
def _add_if_new(dialect: str, table: Table) -> postgresql.Insert:
    return insert_into(dialect, table).on_conflict_do_nothing()


@cache
def _upsert(dialect: str, table: Table) -> postgresql.Insert:
    statement = insert_into(dialect, table)
    keys = [column.name for column in table.primary_key]
    changed: dict[str, Any] = {
        column.name: statement.excluded[column.name]
        for column in table.columns
        if column.name not in keys
    }
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


async def add_rows(
    connection: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]]
) -> None:
    """Inserts `rows`, each with every column of `table`; all of them or none.

    PostgreSQL gets one statement with an array per column, instead of parsing, answering and
    counting each row. SQLite runs in this process and gains nothing from it.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        await connection.execute(table.insert(), list(rows))
        return
    names = [column.name for column in table.columns]
    await connection.execute(
        _from_arrays(table), {name: [row[name] for row in rows] for name in names}
    )


@cache
def _from_arrays(table: Table) -> Insert:
    """Returns INSERT ... SELECT unnest(a), unnest(b), ...; PostgreSQL pairs the arrays by index."""
    arrays = [
        type_coerce(func.unnest(bindparam(column.name, type_=ARRAY(column.type))), column.type)
        for column in table.columns
    ]
    return table.insert().from_select([column.name for column in table.columns], select(*arrays))
