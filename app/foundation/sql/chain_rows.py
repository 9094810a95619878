"""Reads the stored rows of a hash chain as raw text, so that another spelling shows."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    Row,
    Table,
    Text,
    case,
    cast,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.hash_chain import ChainEvent, ChainHead, StoredEvent, instant_text
from app.foundation.sql.tables import service_facts

E = TypeVar("E", bound=ChainEvent)
_BATCH: Final = 1000


def _no_fault(_: Mapping[str, Any]) -> str | None:
    """Finds nothing: the default without rules beside the chain's own."""
    return None


@dataclass(slots=True)
class ChainRows(Generic[E]):
    """Rows of one chain in a table with the columns seq, payload and occurred_at.

    `decode` makes an event of the texts of a row; it may raise ValueError and TypeError. `fault`
    names a deviation that the hash does not cover.
    """

    table: Table
    decode: Callable[[Mapping[str, Any]], E]
    fault: Callable[[Mapping[str, Any]], str | None] = _no_fault
    _integers: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        whole = (column.name for column in self.table.columns if isinstance(column.type, Integer))
        self._integers = frozenset(whole)

    async def batches(self, connection: AsyncConnection) -> AsyncIterator[list[StoredEvent[E]]]:
        """All rows in order of their numbers."""
        is_sqlite = connection.dialect.name == "sqlite"
        order = [column for column in self.table.primary_key if column.name != "seq"]
        query = select(*self._columns(is_sqlite)).order_by(self.table.c.seq, *order)
        async with connection.stream(query) as result:
            async for rows in result.partitions(_BATCH):
                yield [self._stored(row, is_sqlite) for row in rows]

    def _columns(self, is_sqlite: bool) -> list[Any]:
        """Returns the columns of the query, each in its stored text form."""
        columns = self.table.columns
        if not is_sqlite:
            return [
                type_coerce(column, Text).label(column.name) if column.name == "payload" else column
                for column in columns
            ]
        # As bytes, because damaged UTF-8 cannot be read as text; with types, because SQLite allows
        # any value in any column.
        kinds: ColumnElement[str] = literal("")
        for column in columns:
            kinds = kinds + func.typeof(column) + " "
        plain = [cast(column, LargeBinary).label(column.name) for column in columns]
        # A number stored as text is read with the other texts.
        number = case((func.typeof(columns.seq) == "integer", columns.seq), else_=None)
        return [number.label("place"), kinds.label("kinds"), *plain]

    def _stored(self, row: Row[Any], is_sqlite: bool) -> StoredEvent[E]:
        mapping = row._mapping  # noqa: SLF001  # its public name
        values = {str(name): value for name, value in mapping.items()}
        seq = values["place"] if is_sqlite else values["seq"]
        try:
            fields = self._texts(values) if is_sqlite else values
            event = self.decode(fields)
            return StoredEvent(event.seq, event, self._fault(values, fields, event, is_sqlite))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return StoredEvent(seq if isinstance(seq, int) else 0, None, "cannot be read")

    def _texts(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Decodes a row. Raises ValueError for invalid text or a missing number."""
        fields: dict[str, Any] = {}
        for column in self.table.columns:
            value = values[column.name]
            text = None if value is None else bytes(value).decode()
            is_number = column.name in self._integers and text is not None
            fields[column.name] = int(text) if is_number and text is not None else text
        return fields

    def _fault(
        self, values: Mapping[str, Any], fields: Mapping[str, Any], event: E, is_sqlite: bool
    ) -> str | None:
        """Returns a fault outside the hash: another spelling of a value, or a foreign row."""
        if (own := self.fault(fields)) is not None:
            return own
        if json.dumps(event.payload, allow_nan=True, separators=(",", ":")) != fields["payload"]:
            return "the stored text of the payload differs from the written form"
        if not is_sqlite:
            return None
        if instant_text(event.occurred_at) != fields["occurred_at"]:
            return "the stored text of the time differs from the written form"
        if any(str(fields[name]) != bytes(values[name]).decode() for name in self._integers):
            return "the stored text of a number differs from the written form"
        due = [self._kind(column, fields[column.name]) for column in self.table.columns]
        if values["kinds"].split() != due:
            return "the stored type of a value differs from the written one"
        return None

    def _kind(self, column: Column[Any], value: object) -> str:
        if value is None:
            return "null"
        return "integer" if column.name in self._integers else "text"


def read_instant(value: object) -> datetime:
    """Time of a row: a datetime, or its stored text. Raises ValueError and TypeError."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


async def has_stored_head(connection: AsyncConnection, key: str) -> bool:
    """True if the fact of the head exists, whatever its value; also if it cannot be read."""
    query = select(service_facts.c.key).where(service_facts.c.key == key)
    try:
        return (await connection.execute(query)).first() is not None
    except SQLAlchemyError:
        return True


async def read_stored_head(connection: AsyncConnection, key: str) -> ChainHead | None:
    """Stored end of a chain; None if it is missing or malformed."""
    query = select(type_coerce(service_facts.c.value, Text)).where(service_facts.c.key == key)
    try:
        value = (await connection.execute(query)).scalar()
        return None if value is None else ChainHead.read(json.loads(value))
    except (SQLAlchemyError, ValueError, TypeError):
        return None
