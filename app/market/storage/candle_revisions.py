"""What the exchange once said of a closed candle and later changed; a trigger keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    PrimaryKeyConstraint,
    Row,
    Table,
    event,
    func,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.metadata import metadata
from app.foundation.sql.types import type_of_uuid
from app.market.domain.models import Interval
from app.market.storage.tables import candles

VALUES: Final = ("open", "high", "low", "close", "volume", "turnover")
_KEY: Final = ("symbol_id", "interval_min", "opened_ms", "revision")

# They were checked when they were candles.
candle_revisions: Final = Table(
    "candle_revisions",
    metadata,
    Column("symbol_id", type_of_uuid, nullable=False),
    Column("interval_min", Integer, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    *(Column(name, Double, nullable=False) for name in VALUES),
    PrimaryKeyConstraint(*_KEY),
    sqlite_with_rowid=False,
)

_COLUMNS: Final = ", ".join((*_KEY, *VALUES))
_OLD: Final = ", ".join(f"OLD.{name}" for name in (*_KEY, *VALUES))
_KEEP: Final = f"INSERT INTO candle_revisions ({_COLUMNS}) VALUES ({_OLD});"  # noqa: S608  # names of ours
_FUNCTION: Final = (
    "CREATE FUNCTION candles_keep_revision() RETURNS trigger LANGUAGE plpgsql AS $$\n"
    f"BEGIN\n  {_KEEP}\n  RETURN NULL;\nEND $$"
)
_ON_EACH_ROW: Final = (
    "CREATE TRIGGER candles_revised AFTER UPDATE ON candles\n"
    "FOR EACH ROW EXECUTE FUNCTION candles_keep_revision()"
)
_MADE: Final[Mapping[str, Sequence[str]]] = {
    "sqlite": (f"CREATE TRIGGER candles_revised AFTER UPDATE ON candles\nBEGIN {_KEEP} END",),
    "postgresql": (_FUNCTION, _ON_EACH_ROW),
}


@event.listens_for(candles, "after_create")
def _trigger(target: Any, connection: Any, **_: Any) -> None:
    del target
    for statement in _MADE[connection.dialect.name]:
        connection.exec_driver_sql(statement)


@dataclass(frozen=True, slots=True)
class Revision:
    """One candle as it was until it was changed; `revision` counts from 1."""

    opened_ms: int
    revision: int
    values: Mapping[str, float]  # open, high, low, close, volume, turnover


@dataclass(frozen=True, slots=True)
class CandleRevisionRepository:
    """Former words of the exchange, by symbol id."""

    connection: AsyncConnection

    async def of(self, symbol_id: str, interval: Interval) -> tuple[Revision, ...]:
        """In the order of their candles, each from its first word on."""
        table = candle_revisions
        rows = await self.connection.execute(
            select(table)
            .where(table.c.symbol_id == symbol_id, table.c.interval_min == interval.value)
            .order_by(table.c.opened_ms, table.c.revision)
        )
        return tuple(_revision(row) for row in rows)

    async def since(
        self, symbol_ids: Sequence[str], interval: Interval, since_ms: int
    ) -> dict[str, tuple[Revision, ...]]:
        """Of candles opened at or after `since_ms`, by symbol; who was never revised is absent."""
        table = candle_revisions
        rows = await self.connection.execute(
            select(table)
            .where(
                table.c.symbol_id.in_(symbol_ids),
                table.c.interval_min == interval.value,
                table.c.opened_ms >= since_ms,
            )
            .order_by(table.c.opened_ms, table.c.revision)
        )
        found: dict[str, list[Revision]] = {}
        for row in rows:
            found.setdefault(str(row.symbol_id), []).append(_revision(row))
        return {symbol_id: tuple(said) for symbol_id, said in found.items()}

    async def count(self, symbol_id: str) -> int:
        """How often a candle of a symbol was changed after its close."""
        table = candle_revisions
        counted = select(func.count()).select_from(table).where(table.c.symbol_id == symbol_id)
        return int((await self.connection.execute(counted)).scalar_one())

    async def forget(self, before_ms: int) -> int:
        """Drops what was said of candles that opened before `before_ms`; how many that were."""
        table = candle_revisions
        dropped = await self.connection.execute(table.delete().where(table.c.opened_ms < before_ms))
        return dropped.rowcount


def _revision(row: Row[Any]) -> Revision:
    return Revision(row.opened_ms, row.revision, {name: getattr(row, name) for name in VALUES})
