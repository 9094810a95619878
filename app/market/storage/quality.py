"""Repository of data-quality verdicts: one row per change of a symbol's verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, Index, PrimaryKeyConstraint, Row, String, Table, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.schema import (
    FiniteFloat,
    JsonText,
    UtcInstant,
    between,
    metadata,
    type_of_uuid,
)
from app.foundation.sql.statements import upsert
from app.market.domain.quality_report import QualityVerdict

# Without a foreign key, like other market data: symbols are never deleted.
quality_verdicts: Final = Table(
    "quality_verdicts",
    metadata,
    Column("symbol_id", type_of_uuid, nullable=False),
    Column("at", UtcInstant, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("score", FiniteFloat, nullable=False),
    Column("flags", JsonText, nullable=False),
    PrimaryKeyConstraint("symbol_id", "at"),
    between("score", "0", "1"),
    sqlite_with_rowid=False,
)
Index("ix_quality_verdicts_at", quality_verdicts.c.at)


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """Verdict valid from `at` until the next one of the symbol; `flags` are codes of faults."""

    symbol_id: str
    at: datetime
    verdict: QualityVerdict
    score: float  # 0..1
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QualityRepository:
    """Verdicts by symbol."""

    connection: AsyncConnection

    async def save(self, verdicts: Sequence[StoredVerdict]) -> None:
        """Saves verdicts; a later one of the same symbol and instant replaces the earlier one."""
        rows = [
            {
                "symbol_id": one.symbol_id,
                "at": one.at,
                "verdict": one.verdict.value,
                "score": one.score,
                "flags": list(one.flags),
            }
            for one in verdicts
        ]
        if rows:
            await self.connection.execute(upsert(self.connection, quality_verdicts), rows)

    async def newest(self) -> dict[str, StoredVerdict]:
        """Returns the last verdict of each symbol, by symbol id."""
        table = quality_verdicts
        last = select(table.c.symbol_id, func.max(table.c.at).label("at")).group_by(
            table.c.symbol_id
        )
        latest = last.subquery()
        rows = await self.connection.execute(
            select(table).join(
                latest, (table.c.symbol_id == latest.c.symbol_id) & (table.c.at == latest.c.at)
            )
        )
        return {row.symbol_id: _verdict(row) for row in rows}

    async def page(
        self, symbol_id: str, before: datetime | None, limit: int
    ) -> tuple[StoredVerdict, ...]:
        """Returns verdicts before `before`, newest first."""
        table = quality_verdicts
        wanted = select(table).where(table.c.symbol_id == symbol_id)
        if before is not None:
            wanted = wanted.where(table.c.at < before)
        rows = await self.connection.execute(wanted.order_by(table.c.at.desc()).limit(limit))
        return tuple(_verdict(row) for row in rows)

    async def prune(self, before: datetime, keep: int) -> int:
        """Deletes verdicts replaced before `before`, and all but the last `keep` of a symbol.

        The last verdict of a symbol stays whatever its age.
        """
        table = quality_verdicts
        newer = table.alias("newer")
        is_replaced = (
            select(newer.c.at)
            .where(
                newer.c.symbol_id == table.c.symbol_id,
                newer.c.at > table.c.at,
                newer.c.at < before,
            )
            .exists()
        )
        old = await self.connection.execute(table.delete().where(table.c.at < before, is_replaced))
        place = func.row_number().over(partition_by=table.c.symbol_id, order_by=table.c.at.desc())
        ranked = select(table.c.symbol_id, table.c.at, place.label("place")).subquery()
        surplus = select(ranked.c.symbol_id, ranked.c.at).where(ranked.c.place > keep)
        many = await self.connection.execute(
            table.delete().where(tuple_(table.c.symbol_id, table.c.at).in_(surplus))
        )
        return old.rowcount + many.rowcount


def _verdict(row: Row[Any]) -> StoredVerdict:
    return StoredVerdict(
        row.symbol_id, row.at, QualityVerdict(row.verdict), row.score, tuple(row.flags)
    )
