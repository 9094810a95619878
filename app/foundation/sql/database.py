"""Database: one unit of work per use case, and transactions that are safe on both engines."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, TypeVar, cast

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.foundation.data_status import DataSource
from app.foundation.errors import Code, OperatorActionError, ServiceError, UnavailableError
from app.foundation.events import EventDraft
from app.foundation.sql.engines import DatabaseOptions, Engines, SlowStatement, opened, url_of
from app.foundation.sql.errors import (
    CONNECT_ERRORS,
    RETRYABLE,
    WritesRefusedError,
    contention,
    overloaded,
    sqlstate,
    translated,
    unavailable,
    unmigrated,
)
from app.foundation.sql.events import EventRepository, listen
from app.foundation.sql.facts import FactRepository
from app.foundation.sql.file_lock import FileLock

T = TypeVar("T")


async def shielded(work: Awaitable[T], undo: Callable[[T], Awaitable[None]] | None = None) -> T:
    """The result of `work`, which a cancellation cannot cut in half.

    A cancellation is delivered after `work` has ended. Its result is then lost to the caller, so
    `undo` gets it, to give back what was taken.
    """
    task = asyncio.ensure_future(work)  # noqa: TID251  # ends before this returns
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # Not an event that the work sets: the loop, when it closes, cancels the task as well, and
        # one that never began sets nothing.
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue  # once is enough; it is raised below
        failed = task.cancelled() or task.exception() is not None
        if undo is not None and not failed:
            await shielded(undo(task.result()))
        raise


R = TypeVar("R")
DraftsOf = Callable[[object], Sequence[EventDraft]]  # stored form of an event; none if unknown


class UnitOfWork:
    """Reads and writes of one use case, committed together or not at all."""

    def __init__(
        self, connection: AsyncConnection, drafts_of: DraftsOf, *, writes: bool = True
    ) -> None:
        self.connection = connection
        self.writes = writes
        self._drafts_of = drafts_of
        self.announced: list[object] = []
        self._repositories: dict[object, object] = {}

    def get(self, repository: Callable[[AsyncConnection], R]) -> R:
        """The repository of that class on this transaction's connection, made at its first use."""
        if repository not in self._repositories:
            self._repositories[repository] = repository(self.connection)
        return cast("R", self._repositories[repository])

    def announce(self, event: object) -> None:
        """Publishes `event` once the transaction is committed; a rollback forgets it.

        What the event codec knows is stored in the same transaction.
        """
        self.announced.append(event)

    async def store_announced(self) -> None:
        """The last statements before a commit: numbers are given in the order of the commits."""
        drafts = [draft for event in self.announced for draft in self._drafts_of(event)]
        await self.get(EventRepository).append(drafts)


ATTEMPTS: Final = 5
BULK_STATEMENT_S: Final = 60.0  # a statement of work in bulk, for which no caller waits
# What is tried where changes were refused: so much that no free rest of a page takes it.
_TRIAL: Final = "trial_of_writing"
_TRIAL_LINES: Final = 1_024  # of 64 characters


class DataSourceMismatchError(OperatorActionError):
    """The stored data came from somewhere else; nothing may be mixed."""


def _ignore(_: object) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class Database:
    """One database, opened once.

    `monotonic` gives seconds, `jitter` numbers in 0..1; `drafts_of` makes the stored form of
    announced events; `publish` gets each announced event after
    its commit, `on_slow` each statement slower than the limit.
    """

    options: DatabaseOptions
    monotonic: Callable[[], float]
    jitter: Callable[[], float]
    drafts_of: DraftsOf
    publish: Callable[[object], None] = _ignore
    on_slow: Callable[[SlowStatement], None] = _ignore
    _engines: Engines | None = field(default=None, init=False)
    _lock: FileLock | None = field(default=None, init=False)
    _commits: int = field(default_factory=int, init=False)  # also in a class without slots
    _refusal: WritesRefusedError | None = field(default=None, init=False)
    _is_unreachable: bool = field(default=False, init=False)
    _is_unfit: bool = field(default=False, init=False)  # it has another schema

    async def open(self) -> None:
        """Takes the lock of an SQLite file and sets the pools up; connects to nothing yet.

        Raises DatabaseInUseError when another process has the file.
        """
        url = url_of(self.options.url)
        if url.get_backend_name() == "sqlite":
            self._lock = FileLock.taken(str(url.database))
        self._engines = opened(self.options, self.monotonic, self.on_slow)

    async def close(self) -> None:
        """Closes every connection and gives the file free; may be called twice."""
        if self._engines is not None:
            engines, self._engines = self._engines, None
            for engine in engines.all():
                await shielded(engine.dispose())
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @asynccontextmanager
    async def write(self, statement_timeout_s: float | None = None) -> AsyncIterator[UnitOfWork]:
        """One transaction, committed when the block ends, rolled back when it raises.

        Events announced in it are published after the commit. `statement_timeout_s` replaces the
        ordinary limit of a statement where bulk work is expected (PostgreSQL only).
        Raises only domain errors for what the database refuses or cannot do.
        """
        engines = self._opened()
        wait = contention if engines.single_writer else overloaded
        async with self._transaction(engines.writer, wait) as unit:
            if statement_timeout_s is not None and not engines.single_writer:
                limit = text("SELECT set_config('statement_timeout', :limit, true)")
                await unit.connection.execute(limit, {"limit": f"{statement_timeout_s * 1e3:.0f}"})
            yield unit

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        """One consistent view over as many statements as wanted; writing fails."""
        async with self._transaction(self._opened().reader, overloaded) as unit:
            yield unit

    async def run(self, closure: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """`closure` in one write transaction, begun again when the database asks for it.

        Serialisation failures and deadlocks repeat the whole closure, at most five times with
        10-200 ms between; so it must do nothing outside the database. Then database_contention.
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
        """One statement on a connection of its own, so that a full pool does not look like death.

        With `revision` its schema must be that one: another process may migrate it under us.
        Raises UnavailableError.
        """
        asked = text("SELECT 1" if revision is None else "SELECT version_num FROM alembic_version")
        try:
            async with asyncio.timeout(within_s), self._opened().probe.connect() as connection:
                found = (await connection.execute(asked)).scalar()
                await connection.commit()  # of what is read: on SQLite nobody waits for it
        except (SQLAlchemyError, *CONNECT_ERRORS) as e:
            self._is_unreachable = True
            raise translated(e) or unavailable() from e
        self._is_unreachable = False
        self._is_unfit = revision is not None and found != revision
        if self._is_unfit:
            raise unmigrated()

    @property
    def is_away(self) -> bool:
        """Whether the last transaction or `ping` could not use it."""
        return self._is_unreachable or self._is_unfit

    @property
    def refusal(self) -> WritesRefusedError | None:
        """Why changes were refused last (disk full, read-only); None while they are taken."""
        return self._refusal

    async def try_writing(self) -> None:
        """Ends `refusal` if a change can be committed again; without one it does nothing."""
        if self._refusal is None:
            return
        lines = (sha256(str(line).encode()).hexdigest() for line in range(_TRIAL_LINES))
        with suppress(ServiceError):
            for value in ("".join(lines), ""):  # the second gives the room back
                async with self.write() as unit:
                    await unit.get(FactRepository).put(_TRIAL, value)
            self._refusal = None

    async def listen(self, hint: Callable[[], None], beat: Callable[[], None]) -> None:
        """Calls `hint` whenever any process has committed events, until cancelled.

        Raises UnavailableError when the connection is lost. On SQLite, which has one process,
        it returns at once: `publish` says the same.
        """
        engines = self._opened()
        if not engines.single_writer:
            await listen(engines.probe, hint, beat)

    async def claim(self, source: DataSource) -> None:
        """Binds the database to `source` for ever. Raises DataSourceMismatchError if it is bound
        to another one.
        """
        async with self.write() as unit:
            stored = await unit.get(FactRepository).keep("data_source", source.value)
        if stored != source.value:
            raise DataSourceMismatchError(
                Code.DATABASE_UNAVAILABLE,
                f"this database holds data of {stored}, the service is set to {source.value}:"
                " use another database for it",
                facts={"stored": str(stored), "configured": source.value},
            )

    @property
    def dialect(self) -> str:
        return self._opened().writer.dialect.name

    @property
    def commits(self) -> int | None:
        """Goes up with every commit; None where other processes may commit as well."""
        return self._commits if self._opened().single_writer else None

    @property
    def checked_out(self) -> int:
        """Connections in use now; 0 when nobody works."""
        return self._opened().checked_out()

    def _opened(self) -> Engines:
        if self._engines is None:
            raise UnavailableError(Code.SHUTTING_DOWN, "the database is closed", retry_after_s=5)
        return self._engines

    @asynccontextmanager
    async def _transaction(
        self, engine: AsyncEngine, pool_wait: Callable[[], UnavailableError]
    ) -> AsyncIterator[UnitOfWork]:
        try:
            connection = await shielded(_begun(engine), undo=_abandoned)
        except (SQLAlchemyError, *CONNECT_ERRORS) as e:
            raise self._noted(translated(e, pool_wait), engine) or e from e
        self._is_unreachable = False
        try:
            try:
                unit = UnitOfWork(
                    connection, self.drafts_of, writes=engine is self._opened().writer
                )
                yield unit
            except BaseException:
                await shielded(_abandoned(connection))
                raise
            await shielded(self._committed(unit))
        except SQLAlchemyError as e:
            error = self._noted(translated(e, pool_wait), engine)
            if error is None:
                raise
            raise error from e

    def _noted(self, error: ServiceError | None, engine: AsyncEngine) -> ServiceError | None:
        # A reader that tries to write is told the same, and says nothing of the disk.
        if isinstance(error, WritesRefusedError) and engine is self._opened().writer:
            self._refusal = error
        if error is not None and error.code is Code.DATABASE_UNAVAILABLE:
            self._is_unreachable |= not isinstance(error, WritesRefusedError)
        return error

    async def _committed(self, unit: UnitOfWork) -> None:
        """What is committed is told, even when nobody waits for it any more."""
        try:
            await unit.store_announced()
            await unit.connection.commit()
        except BaseException:
            await _abandoned(unit.connection)
            raise
        finally:
            if unit.writes:  # also where nobody knows what became of it
                self._commits += 1
        await unit.connection.close()
        for event in unit.announced:
            self.publish(event)


@dataclass(slots=True)
class CommitMark:
    """Commit up to which a poller has found nothing to do.

    While it is the newest one there is nothing to read. A database that other processes may
    commit to, or that was away, is always read.
    """

    _commits: int | None = field(default=None, init=False)

    def is_newest(self, database: Database) -> bool:
        """Raises UnavailableError once the database is closed."""
        commits = database.commits
        return commits is not None and commits == self._commits and not database.is_away

    def move(self, commits: int | None) -> None:
        """`commits` is the count of before the reading: a commit during it is read later."""
        self._commits = commits


async def _begun(engine: AsyncEngine) -> AsyncConnection:
    connection = engine.connect()
    await connection.start()
    try:
        await connection.begin()
    except BaseException:
        await _abandoned(connection)
        raise
    return connection


async def _abandoned(connection: AsyncConnection) -> None:
    """Rolls back and gives the connection back; a dead one is thrown away."""
    try:
        await connection.close()
    except (SQLAlchemyError, *CONNECT_ERRORS):
        await connection.invalidate()
        await connection.close()
