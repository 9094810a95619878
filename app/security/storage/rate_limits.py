"""Stores windows of rate limits that several processes share."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    bindparam,
    case,
    cast,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from app.foundation.sql.statements import insert_into
from app.security.domain.rate_limits import WindowCount
from app.security.storage.tables import rate_limit_windows as table

_MS: Final = 1_000


def _now_ms(dialect: str) -> ColumnElement[int]:
    """Milliseconds since 1970, the same in the whole statement."""
    if dialect == "sqlite":
        return cast((func.julianday("now") - 2_440_587.5) * 86_400_000, BigInteger)
    return cast(func.extract("epoch", func.statement_timestamp()) * _MS, BigInteger)


class _Window:
    """Window of a stored row as of `number`, the current window; windows are whole periods.

    A statement that waited for the row may find the next window begun: it counts there. A clock
    that was set gives an empty window.
    """

    def __init__(self, number: ColumnElement[int], window_s: ColumnElement[int]) -> None:
        row, span_ms = table.c, window_s * _MS
        is_same = or_(row.window_number == number, row.window_number == number + 1)
        self.number = case((is_same, row.window_number), else_=number)
        self.current = case((is_same, row.current_count), else_=0)
        self.previous = case(
            (is_same, row.previous_count),
            (row.window_number == number - 1, row.current_count),
            else_=0,
        )
        self.span_ms = span_ms

    def left_ms(self, now_ms: ColumnElement[int]) -> ColumnElement[int]:
        rest = (self.number + 1) * self.span_ms - now_ms
        return case((rest > self.span_ms, self.span_ms), else_=rest)


@cache
def _addition(dialect: str, *, is_limited: bool) -> ReturningInsert[Any]:
    """Adds to the current window, if limited only within the quota; returns its counts."""
    now_ms, window_s = _now_ms(dialect), bindparam("window_s", type_=BigInteger)
    amount = bindparam("amount", type_=BigInteger)
    fresh = {
        "key": bindparam("key"),
        "window_s": window_s,
        "window_number": now_ms // (window_s * _MS),
        "current_count": amount,
        "previous_count": 0,
    }
    statement = insert_into(dialect, table).values(**fresh)
    window = _Window(statement.excluded.window_number, window_s)
    left_ms = window.left_ms(now_ms)
    used = window.previous * left_ms // window.span_ms + window.current
    quota = bindparam("quota", type_=BigInteger)
    changes: dict[str, Any] = {
        "window_number": window.number,
        "current_count": window.current + amount,
        "previous_count": window.previous,
        "window_s": window_s,
    }
    stored_rest_ms = (table.c.window_number + 1) * window_s * _MS - now_ms
    return statement.on_conflict_do_update(
        index_elements=[table.c.key],
        set_=changes,
        where=(used + amount <= quota) if is_limited else None,
    ).returning(table.c.previous_count, table.c.current_count, stored_rest_ms)


@cache
def _reading(dialect: str) -> Select[Any]:
    now_ms = _now_ms(dialect)
    window = _Window(now_ms // (table.c.window_s * _MS), table.c.window_s)
    return select(window.previous, window.current, window.left_ms(now_ms), table.c.window_s).where(
        table.c.key == bindparam("key")
    )


@dataclass(frozen=True, slots=True)
class RateLimitRepository:
    """Counts of sliding windows by key, by the clock of the database."""

    connection: AsyncConnection

    async def add(
        self, key: str, window_s: int, amount: int, quota: int | None = None
    ) -> WindowCount | None:
        """Counts `amount` requests; None, and nothing counted, if that exceeds the quota."""
        values = {"key": key, "window_s": window_s, "amount": amount, "quota": quota}
        statement = _addition(self.connection.dialect.name, is_limited=quota is not None)
        if quota is None:
            del values["quota"]
        row = (await self.connection.execute(statement, values)).one_or_none()
        return None if row is None else _count(row[0], row[1], row[2], window_s)

    async def read(self, key: str) -> WindowCount | None:
        """Counts of the current window; None for an unknown key."""
        statement = _reading(self.connection.dialect.name)
        row = (await self.connection.execute(statement, {"key": key})).one_or_none()
        return None if row is None else _count(*row)

    async def forget(self, key: str | None = None) -> int:
        """Deletes one key, or all; returns their number."""
        chosen = delete(table) if key is None else delete(table).where(table.c.key == key)
        return (await self.connection.execute(chosen)).rowcount


def _count(previous: int, current: int, left_ms: int, window_s: int) -> WindowCount:
    return WindowCount(previous, current, min(left_ms / _MS, float(window_s)), window_s)
