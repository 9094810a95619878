"""One transaction with its repositories, and the events that leave after its commit."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.events import EventDraft
from app.foundation.sql.events import EventRepository

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
