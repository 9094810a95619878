"""Audits a database: reads the stored history as raw text and verifies it."""

import json
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    LargeBinary,
    NullPool,
    Row,
    Text,
    case,
    cast,
    event,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy import inspect as sqlalchemy_inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.configuration.storage.configuration import configuration_versions
from app.foundation.errors import Code, NotFoundError, UnavailableError
from app.foundation.events import Topic
from app.foundation.sql.engines import url_of
from app.foundation.sql.errors import CONNECT_ERRORS, translated
from app.foundation.sql.facts import FactRepository
from app.foundation.sql.tables import events, service_facts
from app.operations.domain.history_audit import (
    HistoryBreak,
    HistoryFindings,
    RecordedControls,
    StoredControls,
    StoredEvent,
    conclude,
    control_breaks,
    record_controls,
    result_breaks,
    settings_breaks,
    verify_events,
    with_breaks,
)
from app.portfolio.domain.event_log import (
    ChainHead,
    EventType,
    PortfolioEvent,
    instant,
    instant_text,
)
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.returns import BookedResult
from app.portfolio.storage.history import HEAD
from app.portfolio.storage.portfolio import LOCKS, SWITCH, PortfolioRepository
from app.portfolio.storage.tables import PORTFOLIO_ID, trades
from app.portfolio.storage.tables import portfolio_history as table

# Errors of an unreadable number, time or document.
_UNREADABLE: Final = (ValueError, TypeError, LookupError, ArithmeticError)


@dataclass(slots=True)
class RecordComparison:
    """Compares stored results, settings and controls with a verified history."""

    connection: AsyncConnection
    has_results: bool
    breaks: list[HistoryBreak] = field(default_factory=list)
    _said: RecordedControls = field(default_factory=RecordedControls)
    _stored: StoredControls | None = None

    @classmethod
    async def begun(cls, connection: AsyncConnection) -> "RecordComparison":
        """Start a comparison; an old schema has no table of results."""
        has_results = await connection.run_sync(
            lambda sync: sqlalchemy_inspect(sync).has_table(trades.name)
        )
        made = cls(connection, has_results)
        try:
            made._stored = await _beside(connection)
        except _UNREADABLE:
            made.breaks.append(HistoryBreak(1, "settings, switch or locks cannot be read"))
        return made

    async def compare(self, events: Sequence[PortfolioEvent]) -> None:
        """Compare further events in order of their numbers."""
        await self._results(events, max((event.seq for event in events), default=None))
        if self._stored is not None:
            self.breaks += settings_breaks(events, self._stored)
        self._said = record_controls(self._said, events)

    async def conclude(self) -> tuple[HistoryBreak, ...]:
        """All differences after the last event."""
        await self._results((), None)
        if self._stored is not None:
            self.breaks += control_breaks(self._said, self._stored)
        return tuple(self.breaks)

    async def _results(self, events: Sequence[PortfolioEvent], upto: int | None) -> None:
        """Compare booked results with `events`; no others may exist up to `upto` (None: at all)."""
        try:
            stored = await self._booked(upto) if self.has_results else {}
            self.breaks += result_breaks(events, stored)
        except _UNREADABLE:
            self.breaks.append(
                HistoryBreak(self._said.newest + 1, "a booked result cannot be read")
            )

    async def _booked(self, upto: int | None) -> dict[int, BookedResult]:
        fields = [trades.c[name] for name in BookedResult.__slots__]
        wanted = select(trades.c.event_seq, *fields).where(trades.c.event_seq > self._said.newest)
        if upto is not None:
            wanted = wanted.where(trades.c.event_seq <= upto)
        rows = (await self.connection.execute(wanted)).all()
        return {seq: BookedResult(*rest) for seq, *rest in rows}


async def _beside(connection: AsyncConnection) -> StoredControls:
    body = type_coerce(configuration_versions.c.body, Text).label("body")
    rows = (await connection.execute(select(configuration_versions.c.version, body))).all()
    facts = await FactRepository(connection).several(SWITCH, LOCKS)
    switch: Any = facts.get(SWITCH) or {"enabled": True}
    locks: Any = facts.get(LOCKS) or {}
    return StoredControls(
        settings={row.version: json.loads(row.body) for row in rows},
        is_enabled=switch["enabled"],
        locks=dict(locks),
    )


_BATCH: Final = 1000
_INTEGERS: Final = frozenset({"seq", "configuration_version"})


async def inspect(url: str) -> HistoryFindings:
    """Verify the history of the database at `url`, read-only and in one snapshot.

    The service may run meanwhile. Results, settings and controls are compared with an intact
    history. Raises NotFoundError without a file, UnavailableError where the database cannot be
    read or has no history yet.
    """
    async with reading(url_of(url)) as connection:
        findings, comparison = HistoryFindings(), await RecordComparison.begun(connection)
        async for rows in _batches(connection):
            findings = verify_events(findings, rows)
            if findings.ok:
                await comparison.compare([row.event for row in rows if row.event is not None])
        head, is_older = await _head(connection)
        made = conclude(findings, head, await _state(connection), is_older=is_older)
        return with_breaks(made, await comparison.conclude()) if made.ok else made


@asynccontextmanager
async def reading(url: URL) -> AsyncIterator[AsyncConnection]:
    """Read-only connection in one snapshot transaction."""
    if url.get_backend_name() == "sqlite":
        engine = create_async_engine(
            _read_only(url),
            poolclass=NullPool,
            connect_args={"isolation_level": None, "timeout": 60},
        )
        event.listen(engine.sync_engine, "begin", lambda sync: sync.exec_driver_sql("BEGIN"))
    else:
        engine = create_async_engine(
            url, poolclass=NullPool, connect_args={"server_settings": {"timezone": "UTC"}}
        ).execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    try:
        async with engine.connect() as connection:
            yield connection
    except (SQLAlchemyError, *CONNECT_ERRORS) as e:
        raise translated(e) or UnavailableError(
            Code.DATABASE_UNAVAILABLE, "the database cannot be read"
        ) from e
    finally:
        await engine.dispose()


def _read_only(url: URL) -> URL:
    """URL of an existing file, opened read-only."""
    path = Path(str(url.database))
    if not path.is_file():
        raise NotFoundError(Code.NOT_FOUND, f"there is no database file {path.name}")
    place = f"file:{quote(str(path.absolute()))}"
    return url.set(database=place, query={"mode": "ro", "uri": "true"})


async def _batches(connection: AsyncConnection) -> AsyncIterator[list[StoredEvent]]:
    is_sqlite = connection.dialect.name == "sqlite"
    wanted = select(*_columns(is_sqlite)).order_by(table.c.seq, table.c.aggregate)
    async with connection.stream(wanted) as result:
        async for rows in result.partitions(_BATCH):
            yield [_stored(row, is_sqlite) for row in rows]


def _columns(is_sqlite: bool) -> list[Any]:
    """Query of every column in its stored text form."""
    if not is_sqlite:
        return [
            type_coerce(column, Text).label(column.name) if column.name == "payload" else column
            for column in table.columns
        ]
    # As bytes, because damaged UTF-8 cannot be read as text; with types, because SQLite allows any
    # value in any column.
    kinds: ColumnElement[str] = literal("")
    for column in table.columns:
        kinds = kinds + func.typeof(column) + " "
    plain = [cast(column, LargeBinary).label(column.name) for column in table.columns]
    # A number stored as text is read with the other texts.
    place = case((func.typeof(table.c.seq) == "integer", table.c.seq), else_=None)
    return [place.label("place"), kinds.label("kinds"), *plain]


def _stored(row: Row[Any], is_sqlite: bool) -> StoredEvent:
    seq = row.place if is_sqlite else row.seq
    try:
        fields = _texts(row) if is_sqlite else dict(row._mapping)  # noqa: SLF001  # its public name
        found = _event(fields)
        return StoredEvent(found.seq, found, _fault(row, fields, found, is_sqlite))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return StoredEvent(seq if isinstance(seq, int) else 0, None, "cannot be read")


def _texts(row: Row[Any]) -> dict[str, Any]:
    """Decode a row. Raises ValueError for invalid text or a missing number."""
    fields: dict[str, Any] = {}
    for column in table.columns:
        value = getattr(row, column.name)
        text = None if value is None else bytes(value).decode()
        is_number = column.name in _INTEGERS and text is not None
        fields[column.name] = int(text) if is_number and text is not None else text
    return fields


def _event(fields: Mapping[str, Any]) -> PortfolioEvent:
    at = fields["occurred_at"]
    return PortfolioEvent(
        **{
            **{name: fields[name] for name in PortfolioEvent.__slots__},
            "type": EventType(fields["type"]),
            "payload": json.loads(fields["payload"]),
            "occurred_at": at if isinstance(at, datetime) else instant(at),
        }
    )


def _fault(
    row: Row[Any], fields: Mapping[str, Any], found: PortfolioEvent, is_sqlite: bool
) -> str | None:
    """Fault outside the hash: another spelling of a value, or a row of another history."""
    if fields["aggregate"] != PORTFOLIO_ID:
        return "belongs to no history of ours"
    if json.dumps(found.payload, allow_nan=True, separators=(",", ":")) != fields["payload"]:
        return "the payload is spelt otherwise than it was written"
    if not is_sqlite:
        return None
    if instant_text(found.occurred_at) != fields["occurred_at"]:
        return "the time is spelt otherwise than it was written"
    if any(str(fields[name]) != bytes(getattr(row, name)).decode() for name in _INTEGERS):
        return "a number is spelt otherwise than it was written"
    if row.kinds.split() != [_kind(column, fields[column.name]) for column in table.columns]:
        return "a value is of another kind than it was written"
    return None


def _kind(column: Column[Any], value: object) -> str:
    if value is None:
        return "null"
    return "integer" if column.name in _INTEGERS else "text"


async def _head(connection: AsyncConnection) -> tuple[ChainHead | None, bool]:
    """Stored head, and whether the history may predate head records."""
    wanted = select(type_coerce(service_facts.c.value, Text)).where(service_facts.c.key == HEAD)
    try:
        found = (await connection.execute(wanted)).scalars().all()
        if not found:
            return None, not await _has_published_change(connection)
        return ChainHead.read(json.loads(found[0])), False
    except (SQLAlchemyError, ValueError, TypeError):
        return None, False


async def _has_published_change(connection: AsyncConnection) -> bool:
    """Whether the event stream holds a change: then a head existed and was removed."""
    if not await connection.run_sync(lambda sync: sqlalchemy_inspect(sync).has_table(events.name)):
        return False
    recorded = select(events.c.seq).where(events.c.topic == Topic.PORTFOLIO_CHANGE.value).limit(1)
    return (await connection.execute(recorded)).first() is not None


async def _state(connection: AsyncConnection) -> Portfolio | None:
    """Stored portfolio; None if unreadable."""
    try:
        return await PortfolioRepository(connection).load()
    except (SQLAlchemyError, ValueError, sqlite3.Error):
        return None
