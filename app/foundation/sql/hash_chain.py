"""Appends events to a hash chain in the transaction of the change that they record."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Insert, Row, Select, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.errors import Code, UnavailableError
from app.foundation.hash_chain import ChainEvent, ChainHead, seal
from app.foundation.sql.key_value import KeyValueRepository
from app.foundation.sql.tables import service_facts

E = TypeVar("E", bound=ChainEvent)


@dataclass(slots=True)
class ChainTable(Generic[E]):
    """Table of one chain: `newest` selects its last event, `head_key` names its stored head.

    `encode` makes a row of an event, `decode` an event of a row of `newest`. `name` is the chain in
    the error of one that was tampered with.
    """

    table: Table
    newest: Select[Any]
    head_key: str
    encode: Callable[[E], Mapping[str, Any]]
    decode: Callable[[Row[Any]], E]
    name: str
    # Built once: building a statement takes as long as running it.
    _insert: Insert = field(init=False)
    _last_and_head: Select[Any] = field(init=False)

    def __post_init__(self) -> None:
        value = select(service_facts.c.value).where(service_facts.c.key == self.head_key)
        self._insert = self.table.insert()
        self._last_and_head = self.newest.add_columns(value.scalar_subquery().label("head"))

    async def append(self, connection: AsyncConnection, unsealed: Iterable[E]) -> tuple[E, ...]:
        """Appends the events with number and hash; the caller has the lock of the chain.

        Raises UnavailableError(history_tampered) if the newest event differs from the stored head.
        """
        last, head = await self._load_last_and_head(connection)
        events = seal(unsealed, None if last is None else ChainHead.of(last))
        if events:
            self._require_intact(last, head)
            await connection.execute(self._insert, [self.encode(event) for event in events])
            fact = ChainHead.of(events[-1]).fact()
            await KeyValueRepository(connection).put(self.head_key, fact)
        return events

    async def lock(self, connection: AsyncConnection) -> None:
        """Makes other appends wait until the end of the transaction, by the row of the head."""
        await KeyValueRepository(connection).get_locked(self.head_key, {})

    async def _load_last_and_head(
        self, connection: AsyncConnection
    ) -> tuple[E | None, ChainHead | None]:
        row = (await connection.execute(self._last_and_head)).first()
        if row is None:  # a head without events is also a fault
            return None, ChainHead.read(await KeyValueRepository(connection).get(self.head_key))
        return self.decode(row), ChainHead.read(row.head)

    def _require_intact(self, last: E | None, head: ChainHead | None) -> None:
        if head is not None and (last is None or head != ChainHead.of(last)):
            raise UnavailableError(
                Code.HISTORY_TAMPERED,
                f"the {self.name} does not end with event {head.seq}, as it did: no change is made"
                " until `my-symbols audit verify` finds nothing",
            )
