"""aiosqlite with fewer turns of its thread: a statement and its first rows are one, not four.

Each turn wakes two threads and hands the interpreter over twice; for the small statements of a
transaction that is most of what they cost.
"""

import sqlite3
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

import aiosqlite

_AT_ONCE: Final = 256  # rows; more are fetched when they are asked for


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

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> Self:
        await self._connection.turn(self._executed, sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Self:
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
    """One connection with its thread, as aiosqlite's, but for its cursors."""

    def cursor(self) -> QuickCursor:  # type: ignore[override]  # has all that SQLAlchemy asks for
        return QuickCursor(self)

    def fresh(self) -> sqlite3.Cursor:
        """A cursor of the connection itself, for use in its thread."""
        return self._conn.cursor()

    async def turn(self, work: Any, *arguments: Any) -> None:
        """`work` in the thread of the connection. Raises what it raises."""
        await self._execute(work, *arguments)  # type: ignore[no-untyped-call]  # as it is there


def quick_connection(database: str, **options: Any) -> QuickConnection:
    """A connection to be awaited, with the arguments of `sqlite3.connect`."""

    def connected() -> sqlite3.Connection:
        opened: sqlite3.Connection = sqlite3.connect(database, **options)
        return opened

    connection = QuickConnection(connected, _AT_ONCE)
    # As SQLAlchemy does with aiosqlite's own: a forgotten connection must not keep us running.
    connection._thread.daemon = True  # noqa: SLF001  # nothing else says so
    return connection
