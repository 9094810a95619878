"""Many rows into one table in one statement, where the database can take them as columns."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Insert, Table, bindparam, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection


async def add_rows(
    connection: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]]
) -> None:
    """Inserts `rows`, each with every column of `table`; nothing at all if one is refused.

    PostgreSQL gets an array per column: one statement, where each row for itself would be parsed,
    answered and counted for itself. SQLite, which runs in this process, gains nothing by it.
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
    """INSERT ... SELECT unnest(a), unnest(b), ...: PostgreSQL takes them side by side."""
    arrays = [
        type_coerce(func.unnest(bindparam(column.name, type_=ARRAY(column.type))), column.type)
        for column in table.columns
    ]
    return table.insert().from_select([column.name for column in table.columns], select(*arrays))
