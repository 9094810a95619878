"""Audit of a database: reads the stored history as raw text and verifies it."""

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
    inspect,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.configuration.storage.configuration import configuration_versions
from app.foundation.errors import Code, NotFoundError, UnavailableError
from app.foundation.events import EventTopic
from app.foundation.hash_chain import ChainBreak, ChainHead, StoredEvent, instant_text, with_breaks
from app.foundation.sql.engines import parse_database_url
from app.foundation.sql.errors import CONNECT_ERRORS, translate
from app.foundation.sql.key_value import KeyValueRepository
from app.foundation.sql.tables import events, service_facts
from app.operations.domain.history_audit import (
    HistoryFindings,
    RecordedControls,
    StoredControls,
    conclude,
    control_breaks,
    record_controls,
    result_breaks,
    settings_breaks,
    verify_events,
)
from app.portfolio.domain.event_log import EventType, PortfolioEvent, instant
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
    breaks: list[ChainBreak] = field(default_factory=list)
    _recorded: RecordedControls = field(default_factory=RecordedControls)
    _stored: StoredControls | None = None

    @classmethod
    async def start(cls, connection: AsyncConnection) -> "RecordComparison":
        """Starts a comparison; an old schema has no table of results."""
        has_results = await connection.run_sync(lambda sync: inspect(sync).has_table(trades.name))
        comparison = cls(connection, has_results)
        try:
            comparison._stored = await _stored_controls(connection)
        except _UNREADABLE:
            comparison.breaks.append(ChainBreak(1, "settings, switch or locks cannot be read"))
        return comparison

    async def compare(self, events: Sequence[PortfolioEvent]) -> None:
        """Compares further events in order of their numbers."""
        await self._results(events, max((event.seq for event in events), default=None))
        if self._stored is not None:
            self.breaks += settings_breaks(events, self._stored)
        self._recorded = record_controls(self._recorded, events)

    async def conclude(self) -> tuple[ChainBreak, ...]:
        """Returns all differences after the last event."""
        await self._results((), None)
        if self._stored is not None:
            self.breaks += control_breaks(self._recorded, self._stored)
        return tuple(self.breaks)

    async def _results(self, events: Sequence[PortfolioEvent], upto: int | None) -> None:
        """Compares booked results with `events`; others up to `upto` (None: any) are breaks."""
        try:
            stored = await self._booked(upto) if self.has_results else {}
            self.breaks += result_breaks(events, stored)
        except _UNREADABLE:
            self.breaks.append(
                ChainBreak(self._recorded.newest + 1, "a booked result cannot be read")
            )

    async def _booked(self, upto: int | None) -> dict[int, BookedResult]:
        fields = [trades.c[name] for name in BookedResult.__slots__]
        query = select(trades.c.event_seq, *fields).where(
            trades.c.event_seq > self._recorded.newest
        )
        if upto is not None:
            query = query.where(trades.c.event_seq <= upto)
        rows = (await self.connection.execute(query)).all()
        return {seq: BookedResult(*rest) for seq, *rest in rows}


async def _stored_controls(connection: AsyncConnection) -> StoredControls:
    body = type_coerce(configuration_versions.c.body, Text).label("body")
    rows = (await connection.execute(select(configuration_versions.c.version, body))).all()
    values = await KeyValueRepository(connection).get_many(SWITCH, LOCKS)
    switch: Any = values.get(SWITCH) or {"enabled": True}
    locks: Any = values.get(LOCKS) or {}
    return StoredControls(
        settings={row.version: json.loads(row.body) for row in rows},
        is_enabled=switch["enabled"],
        locks=dict(locks),
    )


_BATCH: Final = 1000
_INTEGERS: Final = frozenset({"seq", "configuration_version"})


async def verify_history(url: str) -> HistoryFindings:
    """Verifies the history of the database at `url`, read-only and in one snapshot.

    The service may run meanwhile. Results, settings and controls are compared with an intact
    history. Raises NotFoundError without a file, UnavailableError if the database cannot be read
    or has no history yet.
    """
    async with open_read_only(parse_database_url(url)) as connection:
        findings, comparison = HistoryFindings(), await RecordComparison.start(connection)
        async for rows in _batches(connection):
            findings = verify_events(findings, rows)
            if findings.ok:
                await comparison.compare([row.event for row in rows if row.event is not None])
        head, is_older = await _head(connection)
        result = conclude(findings, head, await _state(connection), is_older=is_older)
        return with_breaks(result, await comparison.conclude()) if result.ok else result


@asynccontextmanager
async def open_read_only(url: URL) -> AsyncIterator[AsyncConnection]:
    """Opens a read-only connection in one snapshot transaction."""
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
        raise translate(e) or UnavailableError(
            Code.DATABASE_UNAVAILABLE, "the database cannot be read"
        ) from e
    finally:
        await engine.dispose()


def _read_only(url: URL) -> URL:
    """Returns the URL of an existing file, opened read-only."""
    path = Path(str(url.database))
    if not path.is_file():
        raise NotFoundError(Code.NOT_FOUND, f"there is no database file {path.name}")
    file_uri = f"file:{quote(str(path.absolute()))}"
    return url.set(database=file_uri, query={"mode": "ro", "uri": "true"})


async def _batches(connection: AsyncConnection) -> AsyncIterator[list[StoredEvent[PortfolioEvent]]]:
    is_sqlite = connection.dialect.name == "sqlite"
    query = select(*_columns(is_sqlite)).order_by(table.c.seq, table.c.aggregate)
    async with connection.stream(query) as result:
        async for rows in result.partitions(_BATCH):
            yield [_stored(row, is_sqlite) for row in rows]


def _columns(is_sqlite: bool) -> list[Any]:
    """Returns the columns of the query, each in its stored text form."""
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
    number = case((func.typeof(table.c.seq) == "integer", table.c.seq), else_=None)
    return [number.label("place"), kinds.label("kinds"), *plain]


def _stored(row: Row[Any], is_sqlite: bool) -> StoredEvent[PortfolioEvent]:
    seq = row.place if is_sqlite else row.seq
    try:
        fields = _texts(row) if is_sqlite else dict(row._mapping)  # noqa: SLF001  # its public name
        event = _event(fields)
        return StoredEvent(event.seq, event, _fault(row, fields, event, is_sqlite))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return StoredEvent(seq if isinstance(seq, int) else 0, None, "cannot be read")


def _texts(row: Row[Any]) -> dict[str, Any]:
    """Decodes a row. Raises ValueError for invalid text or a missing number."""
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
    row: Row[Any], fields: Mapping[str, Any], event: PortfolioEvent, is_sqlite: bool
) -> str | None:
    """Returns a fault outside the hash: another spelling of a value, or a foreign row."""
    if fields["aggregate"] != PORTFOLIO_ID:
        return "belongs to another history"
    if json.dumps(event.payload, allow_nan=True, separators=(",", ":")) != fields["payload"]:
        return "the stored text of the payload differs from the written form"
    if not is_sqlite:
        return None
    if instant_text(event.occurred_at) != fields["occurred_at"]:
        return "the stored text of the time differs from the written form"
    if any(str(fields[name]) != bytes(getattr(row, name)).decode() for name in _INTEGERS):
        return "the stored text of a number differs from the written form"
    if row.kinds.split() != [_kind(column, fields[column.name]) for column in table.columns]:
        return "the stored type of a value differs from the written one"
    return None


def _kind(column: Column[Any], value: object) -> str:
    if value is None:
        return "null"
    return "integer" if column.name in _INTEGERS else "text"


async def _head(connection: AsyncConnection) -> tuple[ChainHead | None, bool]:
    """Returns the stored head, and whether the history may predate head records."""
    query = select(type_coerce(service_facts.c.value, Text)).where(service_facts.c.key == HEAD)
    try:
        values = (await connection.execute(query)).scalars().all()
        if not values:
            return None, not await _has_published_change(connection)
        return ChainHead.read(json.loads(values[0])), False
    except (SQLAlchemyError, ValueError, TypeError):
        return None, False


async def _has_published_change(connection: AsyncConnection) -> bool:
    """Returns True if the event stream has a change: then a head existed and was removed."""
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(events.name)):
        return False
    recorded = (
        select(events.c.seq).where(events.c.topic == EventTopic.PORTFOLIO_CHANGE.value).limit(1)
    )
    return (await connection.execute(recorded)).first() is not None


async def _state(connection: AsyncConnection) -> Portfolio | None:
    """Returns the stored portfolio; None if it is unreadable."""
    try:
        return await PortfolioRepository(connection).load()
    except (SQLAlchemyError, ValueError, sqlite3.Error):
        return None
