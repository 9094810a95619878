"""Engines of both databases: who may write, time limits, and detection of slow statements."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
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
    """Address and time limits of the database, in seconds.

    PostgreSQL has one pool of `pool_size`. SQLite has one writer and at most `SQLITE_READERS`
    readers; ages and tests of connections do not apply to it. It waits `busy_timeout_s` for other
    processes, and the longer of `busy_timeout_s` and `pool_wait_s` for
    its turn among writes of this process. PostgreSQL waits `pool_wait_s` for a connection.
    """

    url: str = field(repr=False)  # it may hold a password
    pool_size: int = 20
    pool_recycle_s: int = 3600
    pool_pre_ping: bool = True
    pool_wait_s: float = 2.0
    connect_timeout_s: float = 5.0
    busy_timeout_s: float = 5.0
    lock_timeout_s: float = 2.0
    statement_timeout_s: float = 5.0
    idle_in_transaction_s: float = 15.0
    slow_statement_s: float = 0.1
    log_statements: bool = False


# Each SQLite connection has a thread and a page cache of 2 MiB of its own.
SQLITE_READERS: Final = 10


@dataclass(frozen=True, slots=True)
class SlowStatement:
    """Statement slower than the limit, without its parameters, which may be confidential."""

    sql: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Engines:
    """Engine for writes, engine for reads, and a probe outside of their pools."""

    writer: AsyncEngine
    reader: AsyncEngine
    probe: AsyncEngine
    single_writer: bool

    def all(self) -> tuple[AsyncEngine, ...]:
        return (self.writer, self.reader, self.probe)

    def checked_out(self) -> int:
        return sum(pool.checkedout() for pool in self._pools())

    def pool_size(self) -> int:
        return sum(pool.size() for pool in self._pools())

    def _pools(self) -> list[AsyncAdaptedQueuePool]:
        """Pools of writes and reads, which may be one."""
        pools = {id(engine.pool): engine.pool for engine in (self.writer, self.reader)}
        return [pool for pool in pools.values() if isinstance(pool, AsyncAdaptedQueuePool)]


def parse_database_url(address: str) -> URL:
    """Returns the URL with the supported driver. Raises ValueError for an unsupported database."""
    url = make_url(address)
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in set(_DRIVERS.values()):
        raise ValueError(f"{url.drivername} is not supported: use sqlite or postgresql")
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ValueError("an SQLite database in memory cannot be shared: name a file")
    return url


def create_engines(
    options: DatabaseOptions,
    monotonic: Callable[[], float],
    on_slow: Callable[[SlowStatement], None],
    on_statement: Callable[[str, float], None] | None = None,
) -> Engines:
    """Returns the engines for `options`; connects to nothing yet.

    `on_statement` receives the text, without parameters, and the seconds of every statement.
    """
    url = parse_database_url(options.url)
    make = _sqlite if url.get_backend_name() == "sqlite" else _postgresql
    engines = make(url, options)
    for engine in (engines.writer, engines.reader, engines.probe):
        if engine.pool is engines.writer.pool and engine is not engines.writer:
            continue  # a view of the writer, which forwards its events
        _watch(engine, options.slow_statement_s, monotonic, on_slow, on_statement)
    return engines


def _sqlite(url: URL, options: DatabaseOptions) -> Engines:
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    # The driver's own transactions begin too late to protect a read before a write.
    driver: dict[str, Any] = {"isolation_level": None, "timeout": options.busy_timeout_s}
    writer = create_async_engine(
        url,
        connect_args=driver,
        hide_parameters=True,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=max(options.busy_timeout_s, options.pool_wait_s),
    )
    reader = create_async_engine(
        url,
        connect_args=driver,
        hide_parameters=True,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=min(options.pool_size, SQLITE_READERS),
        max_overflow=0,
        # Each connection fills a page cache of 2 MiB of its own: few of them take most reads.
        pool_use_lifo=True,
        pool_timeout=options.pool_wait_s,
    )
    # One pooled connection: opening a thread and a file for each check took longer than the check.
    probe = create_async_engine(
        url,
        connect_args=driver,
        hide_parameters=True,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=options.pool_wait_s,
    )
    _reconnect_on_file_change(probe, Path(str(url.database)))
    _prepare(writer, "BEGIN IMMEDIATE", "query_only=OFF")
    _prepare(reader, "BEGIN", "query_only=ON")
    _prepare(probe, "BEGIN", "query_only=ON")
    return Engines(writer, reader, probe, single_writer=True)


def _reconnect_on_file_change(engine: AsyncEngine, path: Path) -> None:
    """Discards pooled connections once `path` names another file."""

    def identity() -> tuple[int, int] | None:
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

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
        # A cancelled statement stays unfinished, and SQLite keeps a closed connection open, with
        # its lock, until the last statement is finalised.
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
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        pool_size=options.pool_size,
        max_overflow=0,
        pool_timeout=options.pool_wait_s,
        pool_recycle=options.pool_recycle_s,
        pool_pre_ping=options.pool_pre_ping,
    )
    # Reads of several tables see one snapshot; they share the pool of the writer.
    reader = writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    probe = create_async_engine(url, connect_args=driver, hide_parameters=True, poolclass=NullPool)

    @event.listens_for(writer.sync_engine, "handle_error")
    def on_error(context: ExceptionContext) -> None:
        # A session may stay read-only after a failover: invalidate all connections.
        if sqlstate(context.original_exception) == READ_ONLY:
            context.is_disconnect = True

    return Engines(writer, reader, probe, single_writer=False)


def _watch(
    engine: AsyncEngine,
    limit_s: float,
    monotonic: Callable[[], float],
    on_slow: Callable[[SlowStatement], None],
    on_statement: Callable[[str, float], None] | None,
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
        if on_statement is not None:
            on_statement(_shorten(sql), seconds)
        if seconds > limit_s:
            on_slow(SlowStatement(_shorten(sql), seconds))


def _shorten(sql: str) -> str:
    return " ".join(sql.split())[:500]
