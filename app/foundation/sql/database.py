"""Database: one unit of work per use case, and transactions that are safe on both engines."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeVar, cast

from sqlalchemy import ARRAY, String, bindparam, func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.foundation.data_status import DataSource
from app.foundation.errors import Code, OperatorActionError, ServiceError, UnavailableError
from app.foundation.events import EventDraft
from app.foundation.health import PoolFacts
from app.foundation.sql.engines import (
    DatabaseOptions,
    Engines,
    SlowStatement,
    create_engines,
    parse_database_url,
)
from app.foundation.sql.errors import (
    CONNECT_ERRORS,
    RETRYABLE,
    WritesRefusedError,
    contention_error,
    overload_error,
    schema_mismatch_error,
    sqlstate,
    translate,
    unavailable_error,
)
from app.foundation.sql.events import EventRepository, listen
from app.foundation.sql.file_lock import FileLock
from app.foundation.sql.key_value import KeyValueRepository

T = TypeVar("T")


async def shield(work: Awaitable[T], undo: Callable[[T], Awaitable[None]] | None = None) -> T:
    """Runs `work` to its end even if the caller is cancelled.

    The cancellation is raised after `work` has ended. The caller then never gets the result, so
    `undo` receives it and releases its resources.
    """
    task = asyncio.ensure_future(work)  # noqa: TID251  # ends before this returns
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # The task is polled, not an event that `work` sets: a closing loop cancels the task as
        # well, and a task that never started sets nothing.
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue  # the cancellation is raised below, once
        failed = task.cancelled() or task.exception() is not None
        if undo is not None and not failed:
            await shield(undo(task.result()))
        raise


R = TypeVar("R")
EncodeEvent = Callable[[object], Sequence[EventDraft]]  # no drafts for an unknown event class


class UnitOfWork:
    """Repositories of one transaction and the events to publish after its commit."""

    def __init__(
        self, connection: AsyncConnection, encode_event: EncodeEvent, *, writes: bool = True
    ) -> None:
        self.connection = connection
        self.writes = writes
        self._encode_event = encode_event
        self.events: list[object] = []
        self._repositories: dict[object, object] = {}

    def get(self, repository: Callable[[AsyncConnection], R]) -> R:
        """Returns the repository of that class on this connection; created at first use."""
        if repository not in self._repositories:
            self._repositories[repository] = repository(self.connection)
        return cast("R", self._repositories[repository])

    def publish_after_commit(self, event: object) -> None:
        """Publishes `event` after the commit; a rollback discards it.

        Events known to the codec are stored in the same transaction.
        """
        self.events.append(event)

    async def store_events(self) -> None:
        """Stores the events last before the commit, so that numbers follow the commit order."""
        drafts = [draft for event in self.events for draft in self._encode_event(event)]
        await self.get(EventRepository).append(drafts)


ATTEMPTS: Final = 5
BULK_STATEMENT_S: Final = 60.0  # limit of a bulk statement, which no request waits for
_NOTIFY: Final = select(
    func.pg_notify(bindparam("channel"), func.unnest(bindparam("messages", type_=ARRAY(String))))
)
# Probe written after a refused write: larger than the free rest of a page could take.
_WRITE_PROBE: Final = "write_probe"
_PROBE_LINES: Final = 1_024  # of 64 characters


class DataSourceMismatchError(OperatorActionError):
    """The database holds data of another source; sources must not mix."""


def _ignore(_: object) -> None:
    """Ignores the event: the default without a subscriber."""


@dataclass(slots=True)
class Database:
    """One database, opened once.

    `monotonic` returns seconds, `jitter` numbers in 0..1. `encode_event` gives the stored form of
    an event. `publish` receives each event after its commit, `on_slow` each statement slower than
    the limit, `on_statement` text and seconds of each statement if the options say so.
    """

    options: DatabaseOptions
    monotonic: Callable[[], float]
    jitter: Callable[[], float]
    encode_event: EncodeEvent
    publish: Callable[[object], None] = _ignore
    on_slow: Callable[[SlowStatement], None] = _ignore
    on_statement: Callable[[str, float], None] | None = None
    _engines: Engines | None = field(default=None, init=False)
    _lock: FileLock | None = field(default=None, init=False)
    _commits: int = field(default_factory=int, init=False)  # also in a class without slots
    _refusal: WritesRefusedError | None = field(default=None, init=False)
    _is_unreachable: bool = field(default=False, init=False)
    _is_schema_wrong: bool = field(default=False, init=False)
    _channels: dict[str, Callable[[str], None]] = field(default_factory=dict, init=False)

    async def open(self, *, is_exclusive: bool = True) -> None:
        """Takes the lock of an SQLite file and creates the pools; does not connect yet.

        Without `is_exclusive` a short command shares an SQLite file with a running service, whose
        event readers see its changes at their next commit. Raises DatabaseInUseError when another
        process has the file.
        """
        url = parse_database_url(self.options.url)
        if url.get_backend_name() == "sqlite" and is_exclusive:
            self._lock = FileLock.acquire(str(url.database))
        on_statement = self.on_statement if self.options.log_statements else None
        self._engines = create_engines(self.options, self.monotonic, self.on_slow, on_statement)

    async def close(self) -> None:
        """Closes every connection and releases the file lock; may be called twice."""
        if self._engines is not None:
            engines, self._engines = self._engines, None
            for engine in engines.all():
                await shield(engine.dispose())
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @asynccontextmanager
    async def write(self, statement_timeout_s: float | None = None) -> AsyncIterator[UnitOfWork]:
        """Yields one transaction: committed at the end of the block, rolled back if it raises.

        Its events are published after the commit. `statement_timeout_s` replaces the ordinary
        limit of a statement for bulk work (PostgreSQL only).
        Raises only domain errors for database failures.
        """
        engines = self._require_open()
        on_pool_timeout = contention_error if engines.single_writer else overload_error
        async with self._transaction(engines.writer, on_pool_timeout) as unit:
            if statement_timeout_s is not None and not engines.single_writer:
                limit = text("SELECT set_config('statement_timeout', :limit, true)")
                await unit.connection.execute(limit, {"limit": f"{statement_timeout_s * 1e3:.0f}"})
            yield unit

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        """Yields one consistent snapshot for any number of statements; writes fail."""
        async with self._transaction(self._require_open().reader, overload_error) as unit:
            yield unit

    async def run(self, closure: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """Runs `closure` in one write transaction and retries it on conflicts.

        Serialisation failures and deadlocks restart the closure, at most five attempts, 10-200 ms
        apart; so it must have no effect outside the database. Then raises database_contention.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.write() as unit:
                    return await closure(unit)
            except UnavailableError as e:
                cause = e.__cause__
                state = sqlstate(cause.orig) if isinstance(cause, DBAPIError) else None
                if state not in RETRYABLE or attempt == ATTEMPTS:
                    raise
            await asyncio.sleep(0.01 + 0.19 * self.jitter())

    async def ping(self, within_s: float = 2.0, revision: str | None = None) -> None:
        """Runs one statement on the probe connection, so that a full pool is no outage.

        With `revision`, the schema must be that one: another process may migrate the database.
        Raises UnavailableError.
        """
        query = text("SELECT 1" if revision is None else "SELECT version_num FROM alembic_version")
        try:
            probe = self._require_open().probe
            async with asyncio.timeout(within_s), probe.connect() as connection:
                stored = (await connection.execute(query)).scalar()
                await connection.commit()  # of a read: a no-op on SQLite
        except (SQLAlchemyError, *CONNECT_ERRORS) as e:
            self._is_unreachable = True
            raise translate(e) or unavailable_error() from e
        self._is_unreachable = False
        self._is_schema_wrong = revision is not None and stored != revision
        if self._is_schema_wrong:
            raise schema_mismatch_error()

    @property
    def is_unavailable(self) -> bool:
        """True if the last transaction or `ping` failed, or the schema is wrong."""
        return self._is_unreachable or self._is_schema_wrong

    @property
    def refusal(self) -> WritesRefusedError | None:
        """Reason of the last refused write (disk full, read-only); None while writes succeed."""
        return self._refusal

    async def retry_writes(self) -> None:
        """Clears `refusal` once a probe can be committed; does nothing without a refusal."""
        if self._refusal is None:
            return
        lines = (sha256(str(line).encode()).hexdigest() for line in range(_PROBE_LINES))
        with suppress(ServiceError):
            for value in ("".join(lines), ""):  # the empty value frees the space again
                async with self.write() as unit:
                    await unit.get(KeyValueRepository).put(_WRITE_PROBE, value)
            self._refusal = None

    async def listen(self, hint: Callable[[], None], beat: Callable[[], None]) -> None:
        """Calls `hint` after each commit of events by any process, until cancelled.

        Raises UnavailableError when the connection is lost. On SQLite, which has one process, it
        returns at once: `publish` gives the same hints.
        """
        engines = self._require_open()
        if not engines.single_writer:
            await listen(engines.probe, hint, beat, self._channels)

    def subscribe(self, channel: str, on_message: Callable[[str], None]) -> None:
        """Passes the messages of all processes to `on_message` while `listen` runs.

        Call it before `listen`. A lost connection loses messages. PostgreSQL only.
        """
        self._channels[channel] = on_message

    async def notify(self, channel: str, messages: Sequence[str]) -> None:
        """Sends messages of up to 8,000 bytes to the subscribers in all processes.

        Raises UnavailableError. PostgreSQL only.
        """
        async with self.write() as unit:
            await unit.connection.execute(_NOTIFY, {"channel": channel, "messages": list(messages)})

    async def bind_source(self, source: DataSource) -> None:
        """Binds the database to `source` for ever.

        Raises DataSourceMismatchError if it is bound to another source.
        """
        async with self.write() as unit:
            stored = await unit.get(KeyValueRepository).put_if_absent("data_source", source.value)
        if stored != source.value:
            raise DataSourceMismatchError(
                Code.DATABASE_UNAVAILABLE,
                f"this database holds data of {stored}, the service is set to {source.value}:"
                " use another database for it",
                facts={"stored": str(stored), "configured": source.value},
            )

    @property
    def dialect(self) -> str:
        return self._require_open().writer.dialect.name

    @property
    def commits(self) -> int | None:
        """Number of commits so far; None where other processes may commit as well."""
        return self._commits if self._require_open().single_writer else None

    async def change_mark(self) -> object:
        """Returns a value that changes with each commit of any process; None where it is unknown.

        A poller that finds it unchanged reads nothing: one statement without a transaction costs a
        sixth of a read. Known on SQLite alone. Raises UnavailableError if the database is closed.
        """
        engines = self._require_open()
        if not engines.single_writer:
            return None
        try:
            async with engines.probe.connect() as connection:
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                ((version,),) = await driver.execute_fetchall("PRAGMA data_version")
                # The number counts what this connection noticed: another one has other numbers.
                return raw.info.setdefault("counted_by", object()), version
        except (SQLAlchemyError, sqlite3.Error, *CONNECT_ERRORS):
            return None  # an ordinary read finds and reports the cause

    @property
    def checked_out(self) -> int:
        """Number of pool connections in use."""
        return self._require_open().checked_out()

    @property
    def pool(self) -> PoolFacts:
        """Connection pool of writes and reads. Raises UnavailableError if it is closed."""
        engines, options = self._require_open(), self.options
        is_pooled = not engines.single_writer
        return PoolFacts(
            self.dialect,
            engines.pool_size(),
            engines.checked_out(),
            options.pool_recycle_s if is_pooled else None,
            options.pool_pre_ping if is_pooled else None,
        )

    async def size_bytes(self) -> int:
        """Returns the size, for SQLite with the pages in its log. Raises UnavailableError."""
        query = (
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            if self._require_open().single_writer
            else "SELECT pg_database_size(current_database())"
        )
        async with self.read() as unit:
            return int((await unit.connection.execute(text(query))).scalar_one())

    def _require_open(self) -> Engines:
        if self._engines is None:
            raise UnavailableError(Code.SHUTTING_DOWN, "the database is closed", retry_after_s=5)
        return self._engines

    @asynccontextmanager
    async def _transaction(
        self, engine: AsyncEngine, on_pool_timeout: Callable[[], UnavailableError]
    ) -> AsyncIterator[UnitOfWork]:
        try:
            connection = await shield(_begin(engine), undo=_discard)
        except (SQLAlchemyError, *CONNECT_ERRORS) as e:
            raise self._record_failure(translate(e, on_pool_timeout), engine) or e from e
        self._is_unreachable = False
        try:
            try:
                unit = UnitOfWork(
                    connection, self.encode_event, writes=engine is self._require_open().writer
                )
                yield unit
            except BaseException:
                await shield(_discard(connection))
                raise
            await shield(self._commit(unit))
        except SQLAlchemyError as e:
            error = self._record_failure(translate(e, on_pool_timeout), engine)
            if error is None:
                raise
            raise error from e

    def _record_failure(
        self, error: ServiceError | None, engine: AsyncEngine
    ) -> ServiceError | None:
        # A reader that writes gets the same error, which says nothing about the disk.
        if isinstance(error, WritesRefusedError) and engine is self._require_open().writer:
            self._refusal = error
        if error is not None and error.code is Code.DATABASE_UNAVAILABLE:
            self._is_unreachable |= not isinstance(error, WritesRefusedError)
        return error

    async def _commit(self, unit: UnitOfWork) -> None:
        """Commits and publishes the events, even if the caller was cancelled."""
        try:
            await unit.store_events()
            await unit.connection.commit()
        except BaseException:
            await _discard(unit.connection)
            raise
        finally:
            if unit.writes:  # also counts a commit with an unknown outcome
                self._commits += 1
        await unit.connection.close()
        for event in unit.events:
            self.publish(event)


@dataclass(slots=True)
class CommitMark:
    """Commit count up to which a poller has found nothing to do.

    While it is the newest commit, polling reads nothing. A database that other processes may
    commit to, or that was unavailable, is always read.
    """

    _commits: int | None = field(default=None, init=False)

    def is_newest(self, database: Database) -> bool:
        """Returns True if no commit followed. Raises UnavailableError if the database is closed."""
        commits = database.commits
        return commits is not None and commits == self._commits and not database.is_unavailable

    def move(self, commits: int | None) -> None:
        """Sets the mark to the count before the read; a commit during the read is read later."""
        self._commits = commits


async def _begin(engine: AsyncEngine) -> AsyncConnection:
    connection = engine.connect()
    await connection.start()
    try:
        await connection.begin()
    except BaseException:
        await _discard(connection)
        raise
    return connection


async def _discard(connection: AsyncConnection) -> None:
    """Rolls back and returns the connection to the pool; invalidates a broken one."""
    try:
        await connection.close()
    except (SQLAlchemyError, *CONNECT_ERRORS):
        await connection.invalidate()
        await connection.close()
