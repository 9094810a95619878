"""Stores valuation snapshots, one for each scheduled time; they never change."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import CheckConstraint, Column, Integer, PrimaryKeyConstraint, Row, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.schema import JsonText, UtcInstant, metadata
from app.foundation.sql.statements import insert
from app.performance.domain.equity_curve import ValuationSnapshot
from app.portfolio.domain.event_log import number_text

performance_marks: Final = Table(
    "performance_marks",
    metadata,
    Column("slot", UtcInstant, nullable=False),
    Column("at", UtcInstant, nullable=False),
    Column("version", Integer, nullable=False),
    Column("mark", JsonText, nullable=False),  # equity, reason, prices; exact numbers as text
    PrimaryKeyConstraint("slot"),
    CheckConstraint("version >= 1", name="version_positive"),
)


@dataclass(frozen=True, slots=True)
class ValuationSnapshotRepository:
    connection: AsyncConnection

    async def record(self, snapshot: ValuationSnapshot) -> bool:
        """Inserts a snapshot; False if its slot already has one, which stays."""
        document = {
            "equity": None if snapshot.equity is None else number_text(snapshot.equity),
            "reason": snapshot.reason,
            "prices": {symbol: number_text(price) for symbol, price in snapshot.prices.items()},
        }
        row = {
            "slot": snapshot.slot,
            "at": snapshot.at,
            "version": snapshot.version,
            "mark": document,
        }
        inserted = await self.connection.execute(
            insert(self.connection, performance_marks).on_conflict_do_nothing(), row
        )
        return inserted.rowcount == 1

    async def page(
        self,
        limit: int,
        after: datetime | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[ValuationSnapshot, ...]:
        """Snapshots after the slot `after`, in [since, until), oldest first."""
        slot = performance_marks.c.slot
        wanted = select(performance_marks).order_by(slot).limit(limit)
        if after is not None:
            wanted = wanted.where(slot > after)
        if since is not None:
            wanted = wanted.where(slot >= since)
        if until is not None:
            wanted = wanted.where(slot < until)
        return tuple(_mark(row) for row in await self.connection.execute(wanted))


def _mark(row: Row[Any]) -> ValuationSnapshot:
    equity = row.mark["equity"]
    return ValuationSnapshot(
        slot=row.slot,
        at=row.at,
        version=row.version,
        equity=None if equity is None else Decimal(equity),
        reason=row.mark["reason"],
        prices={symbol: Decimal(price) for symbol, price in row.mark["prices"].items()},
    )
