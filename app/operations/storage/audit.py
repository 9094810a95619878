"""Audit of a database: reads the stored history as raw text and verifies it."""

import json
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import (
    URL,
    NullPool,
    Text,
    event,
    inspect,
    select,
    type_coerce,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.configuration.storage.configuration import configuration_versions
from app.foundation.errors import Code, NotFoundError, UnavailableError
from app.foundation.events import EventTopic
from app.foundation.hash_chain import ChainBreak, ChainHead, with_breaks
from app.foundation.sql.chain_rows import ChainRows, has_stored_head, read_instant, read_stored_head
from app.foundation.sql.engines import parse_database_url
from app.foundation.sql.errors import CONNECT_ERRORS, translate
from app.foundation.sql.key_value import KeyValueRepository
from app.foundation.sql.tables import events
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
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.returns import BookedResult
from app.portfolio.storage.history import HEAD
from app.portfolio.storage.portfolio import LOCKS, SWITCH, PortfolioRepository
from app.portfolio.storage.tables import PORTFOLIO_ID, portfolio_history, trades
from app.security.domain.audit import SecurityEvent
from app.security.domain.chain_audit import (
    SecurityFindings,
    begin_security,
    conclude_security,
    verify_security,
)
from app.security.storage.audit import HEAD as SECURITY_HEAD
from app.security.storage.audit import SecurityEventRepository
from app.security.storage.tables import security_events

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


async def verify_history(url: str) -> HistoryFindings:
    """Verifies the history of the database at `url`, read-only and in one snapshot.

    The service may run meanwhile. Results, settings and controls are compared with an intact
    history. Raises NotFoundError without a file, UnavailableError if the database cannot be read
    or has no history yet.
    """
    async with open_read_only(parse_database_url(url)) as connection:
        findings, comparison = HistoryFindings(), await RecordComparison.start(connection)
        async for rows in _HISTORY.batches(connection):
            findings = verify_events(findings, rows)
            if findings.ok:
                await comparison.compare([row.event for row in rows if row.event is not None])
        head, is_older = await _head(connection)
        result = conclude(findings, head, await _state(connection), is_older=is_older)
        return with_breaks(result, await comparison.conclude()) if result.ok else result


async def verify_security_events(url: str) -> SecurityFindings:
    """Verifies the chain of security events at `url`, read-only and in one snapshot.

    Raises as `verify_history`; a database of an earlier version has no security events.
    """
    async with open_read_only(parse_database_url(url)) as connection:
        if not await connection.run_sync(
            lambda sync: inspect(sync).has_table(security_events.name)
        ):
            return SecurityFindings()
        anchor = await SecurityEventRepository(connection).anchor()
        findings = begin_security(anchor)
        async for rows in _SECURITY.batches(connection):
            findings = verify_security(findings, rows)
        head = await read_stored_head(connection, SECURITY_HEAD)
        return conclude_security(findings, head)


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


def _portfolio_event(fields: Mapping[str, Any]) -> PortfolioEvent:
    return PortfolioEvent(
        **{
            **{name: fields[name] for name in PortfolioEvent.__slots__},
            "type": EventType(fields["type"]),
            "payload": json.loads(fields["payload"]),
            "occurred_at": read_instant(fields["occurred_at"]),
        }
    )


def _foreign(fields: Mapping[str, Any]) -> str | None:
    return None if fields["aggregate"] == PORTFOLIO_ID else "belongs to another history"


def _security_event(fields: Mapping[str, Any]) -> SecurityEvent:
    return SecurityEvent(
        **{
            **{name: fields[name] for name in SecurityEvent.__slots__},
            "payload": json.loads(fields["payload"]),
            "occurred_at": read_instant(fields["occurred_at"]),
        }
    )


_HISTORY: Final = ChainRows(portfolio_history, _portfolio_event, _foreign)
_SECURITY: Final = ChainRows(security_events, _security_event)


async def _head(connection: AsyncConnection) -> tuple[ChainHead | None, bool]:
    """Returns the stored head, and whether the history may predate head records."""
    if await has_stored_head(connection, HEAD):
        return await read_stored_head(connection, HEAD), False
    return None, not await _has_published_change(connection)


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
