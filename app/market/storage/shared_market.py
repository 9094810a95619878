"""Repository of the leader's market for other processes (one row), and of sync requests."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.events import CHANNEL
from app.foundation.sql.leases import LeaseRepository, now_ms
from app.foundation.sql.statements import insert
from app.foundation.sql.tables import shared_markets, sync_requests

FEED: Final = "feed"
_KEEP_REQUESTS_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Stamped:
    """Version of the row, and the database's times at its writing and reading."""

    epoch: int
    version: int
    stamped_ms: int
    read_ms: int

    @property
    def elapsed_s(self) -> float:
        return max(0, self.read_ms - self.stamped_ms) / 1000


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """State of a sync request to the feed's leader; `error` is a stable code."""

    is_done: bool
    error: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class SharedMarketRepository:
    """The shared row, and the requests to its writer."""

    connection: AsyncConnection

    async def clock_ms(self) -> int:
        """Returns the database's time."""
        return int((await self.connection.execute(select(now_ms(self.connection)))).scalar_one())

    async def publish(self, epoch: int, stamped_ms: int, payload: bytes) -> int:
        """Writes the row; returns the number of rows, 0 without the lease of `epoch`."""
        table = shared_markets
        if not await LeaseRepository(self.connection).is_current(FEED, epoch):
            return 0
        statement = insert(self.connection, table).values(
            name=FEED, epoch=epoch, version=1, stamped_ms=stamped_ms, payload=payload
        )
        given = statement.excluded
        written = await self.connection.execute(
            statement.on_conflict_do_update(
                index_elements=[table.c.name],
                set_={
                    "epoch": given.epoch,
                    "version": table.c.version + 1,
                    "stamped_ms": given.stamped_ms,
                    "payload": given.payload,
                },
            )
        )
        if self.connection.dialect.name == "postgresql":
            await self.connection.execute(select(func.pg_notify(CHANNEL, FEED)))
        return written.rowcount

    async def stamp(self) -> Stamped | None:
        """Returns the version of the row; None before the first write."""
        row = (await self.connection.execute(self._wanted())).one_or_none()
        return None if row is None else Stamped(row[0], row[1], row[2], row[3])

    async def newest(self) -> tuple[Stamped, bytes] | None:
        """Returns version and payload of the row; None before the first write."""
        wanted = self._wanted().add_columns(shared_markets.c.payload)
        row: Any = (await self.connection.execute(wanted)).one_or_none()
        return None if row is None else (Stamped(*row[:4]), row.payload)

    def _wanted(self) -> Select[int, int, int, int]:
        table = shared_markets
        return select(
            table.c.epoch, table.c.version, table.c.stamped_ms, now_ms(self.connection)
        ).where(table.c.name == FEED)

    async def request_sync(self, request_id: str) -> None:
        """Adds a request for the contract list, and deletes old requests."""
        table, now = sync_requests, now_ms(self.connection)
        await self.connection.execute(
            table.delete().where(table.c.requested_ms < now - _KEEP_REQUESTS_MS)
        )
        await self.connection.execute(
            insert(self.connection, table)
            .values(request_id=request_id, requested_ms=now)
            .on_conflict_do_nothing()
        )

    async def open_sync_requests(self) -> tuple[str, ...]:
        """Returns the ids of unanswered requests."""
        table = sync_requests
        wanted = select(table.c.request_id).where(table.c.done_ms.is_(None))
        return tuple(await self.connection.scalars(wanted))

    async def answer_sync_requests(
        self, request_ids: tuple[str, ...], error: str | None, detail: str | None
    ) -> None:
        """Marks requests as done, or as failed with a code."""
        table = sync_requests
        await self.connection.execute(
            table.update()
            .where(table.c.request_id.in_(request_ids))
            .values(
                done_ms=now_ms(self.connection),
                error=error,
                detail=None if detail is None else detail[:500],
            )
        )

    async def sync_request(self, request_id: str) -> SyncRequest | None:
        """Returns a request; None for an unknown id."""
        table = sync_requests
        wanted = select(table.c.done_ms, table.c.error, table.c.detail).where(
            table.c.request_id == request_id
        )
        row = (await self.connection.execute(wanted)).one_or_none()
        return None if row is None else SyncRequest(row.done_ms is not None, row.error, row.detail)
