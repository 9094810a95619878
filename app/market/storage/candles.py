"""Stored closed candles, and the revisions that the exchange made to them afterwards."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    PrimaryKeyConstraint,
    Row,
    Select,
    Table,
    event,
    func,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.schema import metadata, type_of_uuid
from app.market.domain.models import CandleSeries, Interval
from app.market.storage.tables import candles

_VALUES: Final = ("open", "high", "low", "close", "volume", "turnover")
_CHUNK: Final = 50_000  # rows in one statement
_CONFLICT: Final = (
    " ON CONFLICT (symbol_id, interval_min, opened_ms) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _VALUES)
    + ", revision = candles.revision + 1 WHERE "
    + " OR ".join(f"candles.{name} <> excluded.{name}" for name in _VALUES)
)
_INTO: Final = (
    f"INSERT INTO candles (symbol_id, interval_min, opened_ms, {', '.join(_VALUES)}, revision)"
)
_SQLITE: Final = f"{_INTO} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1){_CONFLICT}"
# Arrays are sent once; an insert row by row would take ten times as long.
_UNNESTED: Final = (
    " SELECT *, 1 FROM unnest($1::text[], $2::int[], $3::bigint[], $4::float8[],"
    " $5::float8[], $6::float8[], $7::float8[], $8::float8[], $9::float8[])"
)
_POSTGRESQL: Final = _INTO + _UNNESTED + _CONFLICT


@dataclass(frozen=True, slots=True)
class SavedCandles:
    """Counts: `written` are new or revised, `refused` are invalid and count as gaps."""

    written: int
    refused: int


@dataclass(frozen=True, slots=True)
class CandleRepository:
    """Candles by symbol id and interval."""

    connection: AsyncConnection

    async def save(self, series: Mapping[str, CandleSeries], interval: Interval) -> SavedCandles:
        """Inserts many symbols at once; a changed candle becomes a revision.

        Refuses candles with inconsistent, non-positive or non-finite values.
        """
        # In a thread: arranging a hundred thousand rows takes longer than a request may wait.
        columns, refused = await asyncio.to_thread(_columns, series, interval)
        written = 0
        for start in range(0, len(columns[0]), _CHUNK):
            written += await self._insert([one[start : start + _CHUNK] for one in columns])
        return SavedCandles(written, refused)

    async def _insert(self, columns: list[list[Any]]) -> int:
        if self.connection.dialect.name == "sqlite":
            rows = list(zip(*columns, strict=True))
            return (await self.connection.exec_driver_sql(_SQLITE, rows)).rowcount
        return (await self.connection.exec_driver_sql(_POSTGRESQL, tuple(columns))).rowcount

    async def load(
        self, symbol_ids: Sequence[str], interval: Interval, since_ms: int = 0
    ) -> dict[str, CandleSeries]:
        """Returns candles opened at or after `since_ms`; symbols without any are absent."""
        statement = self._of(symbol_ids, interval).where(candles.c.opened_ms >= since_ms)
        return await self._series(statement.order_by(candles.c.symbol_id, candles.c.opened_ms))

    async def span(self, interval: Interval) -> tuple[int, int] | None:
        """Returns the oldest and the newest opening time (ms) of all symbols; None without any."""
        opened = candles.c.opened_ms
        statement = select(func.min(opened), func.max(opened)).where(
            candles.c.interval_min == interval.value
        )
        oldest, newest = (await self.connection.execute(statement)).one()
        return None if oldest is None else (int(oldest), int(newest))

    async def page(
        self, symbol_id: str, interval: Interval, start_ms: int, end_ms: int, limit: int
    ) -> CandleSeries:
        """Returns the first `limit` candles opened in [start_ms, end_ms), oldest first."""
        statement = (
            self._of([symbol_id], interval)
            .where(candles.c.opened_ms >= start_ms, candles.c.opened_ms < end_ms)
            .order_by(candles.c.opened_ms)
            .limit(limit)
        )
        series = await self._series(statement)
        return series.get(symbol_id) or _assembled([])

    @staticmethod
    def _of(symbol_ids: Sequence[str], interval: Interval) -> Select[Any]:
        fields = (candles.c[name] for name in ("symbol_id", "opened_ms", *_VALUES))
        return select(*fields).where(
            candles.c.symbol_id.in_(symbol_ids), candles.c.interval_min == interval.value
        )

    async def _series(self, statement: Select[Any]) -> dict[str, CandleSeries]:
        """Converts rows to arrays while streaming: a million row objects would fill the memory."""
        parts: dict[str, list[np.ndarray[Any, Any]]] = {}
        async with self.connection.stream(statement) as rows:
            async for chunk in rows.partitions(10_000):
                ids = np.array([row[0] for row in chunk])
                table = np.array([tuple(row)[1:] for row in chunk], dtype=np.float64)
                edges = np.flatnonzero(ids[1:] != ids[:-1]) + 1
                starts = (0, *edges.tolist())
                for start, block in zip(starts, np.split(table, edges), strict=True):
                    parts.setdefault(str(ids[start]), []).append(block)
        return {symbol_id: _assembled(blocks) for symbol_id, blocks in parts.items()}


def _columns(series: Mapping[str, CandleSeries], interval: Interval) -> tuple[list[list[Any]], int]:
    """Returns column lists of all valid candles, and the number of invalid ones."""
    columns: list[list[Any]] = [[] for _ in range(3 + len(_VALUES))]
    refused = 0
    for symbol_id, one in series.items():
        sound = _sound(one)
        count = int(sound.sum())
        refused += len(one) - count
        arrays = [one.opened_ms, *(getattr(one, name) for name in _VALUES)]
        parts: list[list[Any]] = [[symbol_id] * count, [interval.value] * count]
        parts += [array[sound].tolist() for array in arrays]
        for column, part in zip(columns, parts, strict=True):
            column.extend(part)
    return columns, refused


def _assembled(blocks: Sequence[np.ndarray[Any, Any]]) -> CandleSeries:
    """Joins blocks of (rows, 7) to one series; milliseconds are exact in float64 up to 2**53."""
    table = np.concatenate(blocks) if blocks else np.empty((0, 1 + len(_VALUES)))
    values = {name: np.ascontiguousarray(table[:, 1 + at]) for at, name in enumerate(_VALUES)}
    return CandleSeries(opened_ms=table[:, 0].astype(np.int64), **values)


def _sound(one: CandleSeries) -> np.ndarray[Any, np.dtype[np.bool_]]:
    finite = np.isfinite(np.stack([getattr(one, name) for name in _VALUES])).all(axis=0)
    ordered = (one.low > 0) & (one.low <= one.open) & (one.low <= one.close)
    ordered &= (one.high >= one.open) & (one.high >= one.close)
    return np.asarray(finite & ordered & (one.volume >= 0) & (one.turnover >= 0))


VALUES: Final = ("open", "high", "low", "close", "volume", "turnover")
_KEY: Final = ("symbol_id", "interval_min", "opened_ms", "revision")

# No checks: the values passed them as candles.
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
_COPY_OLD: Final = f"INSERT INTO candle_revisions ({_COLUMNS}) VALUES ({_OLD});"  # noqa: S608  # names of ours
_FUNCTION: Final = (
    "CREATE FUNCTION candles_keep_revision() RETURNS trigger LANGUAGE plpgsql AS $$\n"
    f"BEGIN\n  {_COPY_OLD}\n  RETURN NULL;\nEND $$"
)
_ON_EACH_ROW: Final = (
    "CREATE TRIGGER candles_revised AFTER UPDATE ON candles\n"
    "FOR EACH ROW EXECUTE FUNCTION candles_keep_revision()"
)
_TRIGGERS: Final[Mapping[str, Sequence[str]]] = {
    "sqlite": (f"CREATE TRIGGER candles_revised AFTER UPDATE ON candles\nBEGIN {_COPY_OLD} END",),
    "postgresql": (_FUNCTION, _ON_EACH_ROW),
}


@event.listens_for(candles, "after_create")
def _trigger(target: Any, connection: Any, **_: Any) -> None:
    del target
    for statement in _TRIGGERS[connection.dialect.name]:
        connection.exec_driver_sql(statement)


@dataclass(frozen=True, slots=True)
class CandleRevision:
    """Former values of a candle; `revision` counts from 1."""

    opened_ms: int
    revision: int
    values: Mapping[str, float]  # open, high, low, close, volume, turnover


@dataclass(frozen=True, slots=True)
class CandleRevisionRepository:
    """Former values of changed candles, by symbol id."""

    connection: AsyncConnection

    async def all(self, symbol_id: str, interval: Interval) -> tuple[CandleRevision, ...]:
        """Returns revisions in the order of their candles, each from the first one on."""
        table = candle_revisions
        rows = await self.connection.execute(
            select(table)
            .where(table.c.symbol_id == symbol_id, table.c.interval_min == interval.value)
            .order_by(table.c.opened_ms, table.c.revision)
        )
        return tuple(_revision(row) for row in rows)

    async def since(
        self, symbol_ids: Sequence[str], interval: Interval, since_ms: int
    ) -> dict[str, tuple[CandleRevision, ...]]:
        """Returns revisions of candles opened at or after `since_ms`, for symbols that have any."""
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
        revisions: dict[str, list[CandleRevision]] = {}
        for row in rows:
            revisions.setdefault(str(row.symbol_id), []).append(_revision(row))
        return {symbol_id: tuple(former) for symbol_id, former in revisions.items()}

    async def count(self, symbol_id: str) -> int:
        """Returns how often a candle of a symbol was changed after its close."""
        table = candle_revisions
        counted = select(func.count()).select_from(table).where(table.c.symbol_id == symbol_id)
        return int((await self.connection.execute(counted)).scalar_one())

    async def prune(self, before_ms: int) -> int:
        """Deletes revisions of candles opened before `before_ms`; returns their number."""
        table = candle_revisions
        dropped = await self.connection.execute(table.delete().where(table.c.opened_ms < before_ms))
        return dropped.rowcount


def _revision(row: Row[Any]) -> CandleRevision:
    return CandleRevision(
        row.opened_ms, row.revision, {name: getattr(row, name) for name in VALUES}
    )
