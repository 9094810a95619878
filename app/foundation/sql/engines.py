"""Engines of both kinds with their guards: who may write, how long to wait, what is slow."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, AsyncAdaptedQueuePool, ExceptionContext, NullPool, event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.foundation.sql.errors import READ_ONLY, sqlstate

_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """Where the database is and how patient we are with it; times in seconds.

    Pool figures count per engine: one for writing and one for reading. SQLite has one writer,
    which waits `busy_timeout_s` for other processes, and for its turn among our own changes as
    long, or `pool_wait_s` if that is longer; PostgreSQL waits for a connection `pool_wait_s`.
    """

    url: str
    pool_size: int = 10
    pool_recycle_s: int = 1800
    pool_pre_ping: bool = True
    pool_wait_s: float = 2.0
    connect_timeout_s: float = 5.0
    busy_timeout_s: float = 5.0
    lock_timeout_s: float = 2.0
    statement_timeout_s: float = 5.0
    idle_in_transaction_s: float = 15.0
    slow_statement_s: float = 0.1


@dataclass(frozen=True, slots=True)
class SlowStatement:
    """A statement that took longer than allowed; parameters are left out on purpose."""

    sql: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Engines:
    """Three ways in: transactions that write, ones that read, and a probe beside their pools."""

    writer: AsyncEngine
    reader: AsyncEngine
    probe: AsyncEngine
    single_writer: bool

    def all(self) -> tuple[AsyncEngine, ...]:
        return (self.writer, self.reader, self.probe)

    def checked_out(self) -> int:
        pools = {id(engine.pool): engine.pool for engine in (self.writer, self.reader)}
        return sum(
            pool.checkedout() for pool in pools.values() if isinstance(pool, AsyncAdaptedQueuePool)
        )


def url_of(address: str) -> URL:
    """The URL with our drivers. Raises ValueError for a database that cannot serve us."""
    url = make_url(address)
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in set(_DRIVERS.values()):
        raise ValueError(f"{url.drivername} is not supported: use sqlite or postgresql")
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ValueError("an SQLite database in memory cannot be shared: name a file")
    return url


def opened(
    options: DatabaseOptions,
    monotonic: Callable[[], float],
    on_slow: Callable[[SlowStatement], None],
) -> Engines:
    """The engines for `options`; nothing is connected yet."""
    url = url_of(options.url)
    make = _sqlite if url.get_backend_name() == "sqlite" else _postgresql
    engines = make(url, options)
    for engine in (engines.writer, engines.reader, engines.probe):
        if engine.pool is engines.writer.pool and engine is not engines.writer:
            continue  # a view of the writer, which passes its events on
        _watch(engine, options.slow_statement_s, monotonic, on_slow)
    return engines


def _sqlite(url: URL, options: DatabaseOptions) -> Engines:
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    # The driver's own transactions begin too late to protect a read before a write.
    driver: dict[str, Any] = {"isolation_level": None, "timeout": options.busy_timeout_s}
    writer = create_async_engine(
        url,
        connect_args=driver,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=max(options.busy_timeout_s, options.pool_wait_s),
    )
    reader = create_async_engine(
        url,
        connect_args=driver,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=options.pool_size,
        max_overflow=0,
        pool_timeout=options.pool_wait_s,
    )
    # One connection that is kept: a thread and a file for each look took longer than the look.
    probe = create_async_engine(
        url,
        connect_args=driver,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=options.pool_wait_s,
    )
    _renewed_with_file(probe, Path(str(url.database)))
    _prepare(writer, "BEGIN IMMEDIATE", "query_only=OFF")
    _prepare(reader, "BEGIN", "query_only=ON")
    _prepare(probe, "BEGIN", "query_only=ON")
    return Engines(writer, reader, probe, single_writer=True)


def _renewed_with_file(engine: AsyncEngine, path: Path) -> None:
    """A connection to what is no longer the file of that name is not used again."""

    def identity() -> tuple[int, int] | None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(_connection: object, record: Any) -> None:
        record.info["file"] = identity()

    @event.listens_for(engine.sync_engine, "checkout")
    def on_checkout(_connection: object, record: Any, _proxy: object) -> None:
        if record.info["file"] != identity():
            raise DisconnectionError


def _prepare(engine: AsyncEngine, begin: str, access: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        try:
            cursor = connection.cursor()
            for pragma in (*_PRAGMAS, access):
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()
        except sqlite3.Error:
            connection.close()  # the pool has not taken it over yet
            raise

    @event.listens_for(engine.sync_engine, "invalidate")
    def on_invalidate(connection: Any, _record: object, _error: object) -> None:
        # Who was cancelled inside a statement leaves it unfinished, and SQLite keeps a closed
        # connection open, with its lock, until the last statement is gone.
        with suppress(sqlite3.Error):
            connection.rollback()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)


def _postgresql(url: URL, options: DatabaseOptions) -> Engines:
    milliseconds = {
        "lock_timeout": options.lock_timeout_s,
        "statement_timeout": options.statement_timeout_s,
        "idle_in_transaction_session_timeout": options.idle_in_transaction_s,
    }
    settings = {name: f"{seconds * 1e3:.0f}" for name, seconds in milliseconds.items()}
    driver: dict[str, Any] = {
        "timeout": options.connect_timeout_s,
        "server_settings": {**settings, "application_name": "my-symbols", "timezone": "UTC"},
    }
    writer = create_async_engine(
        url,
        connect_args=driver,
        isolation_level="READ COMMITTED",
        pool_size=options.pool_size,
        max_overflow=0,
        pool_timeout=options.pool_wait_s,
        pool_recycle=options.pool_recycle_s,
        pool_pre_ping=options.pool_pre_ping,
    )
    # Reads of several tables see one instant; they share the pool of the writer.
    reader = writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    probe = create_async_engine(url, connect_args=driver, poolclass=NullPool)

    @event.listens_for(writer.sync_engine, "handle_error")
    def on_error(context: ExceptionContext) -> None:
        # A session that may only read may go on so after the server was promoted: all are renewed.
        if sqlstate(context.original_exception) == READ_ONLY:
            context.is_disconnect = True

    return Engines(writer, reader, probe, single_writer=False)


def _watch(
    engine: AsyncEngine,
    limit_s: float,
    monotonic: Callable[[], float],
    on_slow: Callable[[SlowStatement], None],
) -> None:
    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def before(_c: object, _cursor: object, _sql: str, _p: object, context: Any, _m: bool) -> None:
        if context is not None:
            context.my_symbols_started = monotonic()

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def after(_c: object, _cursor: object, sql: str, _p: object, context: Any, _m: bool) -> None:
        started = getattr(context, "my_symbols_started", None)
        if started is None:
            return
        seconds = monotonic() - started
        if seconds > limit_s:
            on_slow(SlowStatement(sql=" ".join(sql.split())[:500], seconds=seconds))
