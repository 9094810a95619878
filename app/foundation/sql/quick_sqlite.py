"""aiosqlite with fewer turns of its thread: a statement and its first rows are one, not four.

Each turn wakes two threads and hands the interpreter over twice; for the small statements of a
transaction that is most of what they cost, and where the event loop is busy each is a round of it.
So what nobody waits for goes along with what somebody does wait for, in the same order.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Self

import aiosqlite

_AT_ONCE: Final = 256  # rows; more are fetched when they are asked for
_BEGINS: Final = frozenset({"BEGIN", "BEGIN IMMEDIATE"})
_ALONG: Final = "goes_along"
# Options of a statement that changes something and of which neither rows nor count are looked at:
# it is carried out with the next one, and what it fails with is raised there, by COMMIT at last.
ALONG: Final = MappingProxyType({_ALONG: True})


def is_along(options: Any) -> bool:
    """Whether a statement with these options may wait for the next one."""
    return bool(options.get(_ALONG))


class QuickCursor:
    """A cursor that brings the first rows along and, where these are all, is closed by then."""

    def __init__(self, connection: "QuickConnection") -> None:
        self._connection = connection
        self._open: sqlite3.Cursor | None = None  # while there may be rows that were not fetched
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1
        self.goes_along = False

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> Self:
        if sql in _BEGINS:
            self._connection.begin(partial(self._executed, sql, parameters))
        elif self.goes_along:
            self._connection.along(partial(self._executed, sql, parameters))
        else:
            await self._connection.turn(self._executed, sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Self:
        if self.goes_along:
            self._connection.along(partial(self._executed_many, sql, parameters))
        else:
            await self._connection.turn(self._executed_many, sql, parameters)
        return self

    async def fetchone(self) -> Any:
        found = await self.fetchmany(1)
        return found[0] if found else None

    async def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        count = self.arraysize if size is None else size
        if len(self._rows) < count and self._open is not None:
            await self._connection.turn(self._fetch, count - len(self._rows))
        return [self._rows.popleft() for _ in range(min(count, len(self._rows)))]

    async def fetchall(self) -> Sequence[Any]:
        if self._open is not None:
            await self._connection.turn(self._fetch, None)
        rows = list(self._rows)
        self._rows.clear()
        return rows

    async def close(self) -> None:
        self._rows.clear()
        if self._open is not None:
            await self._connection.turn(self._end)

    # --- in the thread of the connection

    def _executed(self, sql: str, parameters: Iterable[Any]) -> None:
        cursor = self._connection.fresh()
        try:
            cursor.execute(sql, parameters)  # type: ignore[arg-type]  # what SQLAlchemy bound
        except BaseException:
            cursor.close()
            raise
        self._told_by(cursor)
        if cursor.description is not None:
            self._fetch(_AT_ONCE)
        else:
            self._end()

    def _executed_many(self, sql: str, parameters: Iterable[Iterable[Any]]) -> None:
        cursor = self._connection.fresh()
        try:
            cursor.executemany(sql, parameters)  # type: ignore[arg-type]  # the same
        except BaseException:
            cursor.close()
            raise
        self._told_by(cursor)
        self._end()

    def _told_by(self, cursor: sqlite3.Cursor) -> None:
        self._open = cursor
        self.description, self.lastrowid = cursor.description, cursor.lastrowid
        self.rowcount = cursor.rowcount

    def _fetch(self, count: int | None) -> None:
        cursor = self._open
        if cursor is None:
            return
        found = cursor.fetchall() if count is None else cursor.fetchmany(count)
        self._rows.extend(found)
        self.rowcount = cursor.rowcount
        if count is None or len(found) < count:
            self._end()

    def _end(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


class QuickConnection(aiosqlite.Connection):
    """One connection with its thread, as aiosqlite's, but for its cursors and its transactions.

    What is held back is carried out before anything else is; a transaction in which nothing was
    done never begins, and one that only reads ends while its caller goes on.
    """

    def __init__(
        self, connector: Callable[[], sqlite3.Connection], iter_chunk_size: int, *, reads: bool
    ) -> None:
        super().__init__(connector, iter_chunk_size)
        self._reads = reads
        self._begin: Callable[[], None] | None = None
        self._held: list[Callable[[], None]] = []
        self._is_idle = True  # nothing was asked of the database since a transaction ended
        self.ended: asyncio.Future[None] | None = None  # once it was told to stop

    def stop(self) -> asyncio.Future[None] | None:
        self.ended = super().stop()
        return self.ended

    async def _connect(self) -> Self:
        try:
            await super()._connect()
        except Exception:
            # What could not be opened is told to stop, and says that it did so: to this loop,
            # which must not be gone by then.
            if self.ended is not None:
                await self.ended
            raise
        return self

    def cursor(self) -> QuickCursor:  # type: ignore[override]  # has all that SQLAlchemy asks for
        return QuickCursor(self)

    def fresh(self) -> sqlite3.Cursor:
        """A cursor of the connection itself, for use in its thread."""
        return self._conn.cursor()

    def begin(self, work: Callable[[], None]) -> None:
        """`work` begins a transaction, with the first that is done in it."""
        self._begin = work

    def along(self, work: Callable[[], None]) -> None:
        """`work` is done before the next turn; who waits for that is told where it fails."""
        self._held.append(work)

    async def turn(self, work: Any, *arguments: Any) -> None:
        """`work` in the thread of the connection, and before it what is held back.

        Raises what the first of it raises that fails; the others are not done then.
        """
        before = self._held if self._begin is None else [self._begin, *self._held]
        self._begin, self._held, self._is_idle = None, [], False
        if before:
            work, arguments = partial(_in_order, before, partial(work, *arguments)), ()
        await self._execute(work, *arguments)  # type: ignore[no-untyped-call]  # as it is there

    async def commit(self) -> None:
        if self._is_idle and not self._held:
            self._begin = None
        elif self._reads and not self._held:
            # The answer is there already; what comes next on this connection comes after it.
            self._tx.put_nowait((None, self._conn.commit))
        else:
            try:
                await self.turn(self._conn.commit)
            except sqlite3.Error:
                await self.rollback()  # nobody else does it: for SQLAlchemy it is over
                raise
        self._is_idle = True

    async def rollback(self) -> None:
        self._begin, self._held = None, []
        if not self._is_idle:
            await self.turn(self._conn.rollback)
            self._is_idle = True


def _in_order(before: Sequence[Callable[[], None]], work: Callable[[], None]) -> None:
    for one in before:
        one()
    work()


def quick_connection(
    database: str, *, reads: bool = False, pragmas: Iterable[str] = (), **options: Any
) -> QuickConnection:
    """A connection to be awaited, with the arguments of `sqlite3.connect`; `reads` is all it does.

    `pragmas` are carried out in the turn in which it is opened.
    """

    def connected() -> sqlite3.Connection:
        opened: sqlite3.Connection = sqlite3.connect(database, **options)
        try:
            for pragma in pragmas:
                opened.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            opened.close()
            raise
        return opened

    connection = QuickConnection(connected, _AT_ONCE, reads=reads)
    # As SQLAlchemy does with aiosqlite's own: a forgotten connection must not keep us running.
    connection._thread.daemon = True  # noqa: SLF001  # nothing else says so
    return connection
