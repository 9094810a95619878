"""Reads and replaces the sealed columns of any table, in batches by primary key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

BATCH: Final = 200


@dataclass(frozen=True, slots=True, eq=False)
class SealedColumns:
    """Columns of a table that hold sealed texts; its primary key is the text column `id`."""

    kind: str
    table: Table
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SealedRow:
    """Stored texts of one row by column, without missing ones."""

    id: str
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SealedColumnRepository:
    """Access to sealed columns without knowledge of their meaning."""

    connection: AsyncConnection

    async def page(
        self, sealed: SealedColumns, after: str = "", limit: int = BATCH, *, lock: bool = False
    ) -> tuple[SealedRow, ...]:
        """Rows in the order of their ids, after that id.

        `lock` makes writers of these rows wait until the end of the transaction.
        """
        table = sealed.table
        wanted = (
            select(table.c.id, *(table.c[name] for name in sealed.columns))
            .where(table.c.id > after)
            .order_by(table.c.id)
            .limit(limit)
        )
        rows = await self.connection.execute(wanted.with_for_update() if lock else wanted)
        return tuple(
            SealedRow(
                row["id"], {name: row[name] for name in sealed.columns if row[name] is not None}
            )
            for row in rows.mappings()
        )

    async def replace(self, sealed: SealedColumns, row_id: str, texts: Mapping[str, str]) -> None:
        """Replaces texts of one row by column."""
        table = sealed.table
        await self.connection.execute(
            table.update().where(table.c.id == row_id).values(dict(texts))
        )
