"""Leases with epochs: exclusive roles of one process, by the clock of the database."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import BigInteger, ColumnElement, case, cast, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import insert
from app.foundation.sql.tables import leases as table


def now_ms(connection: AsyncConnection) -> ColumnElement[int]:
    """Returns an expression for milliseconds since 1970 when the statement runs."""
    if connection.dialect.name == "sqlite":
        since_1970 = (func.julianday("now") - 2_440_587.5) * 86_400_000
    else:
        # Not now(), which is the start of the transaction.
        since_1970 = func.extract("epoch", func.clock_timestamp()) * 1000
    return cast(since_1970, BigInteger)


@dataclass(frozen=True, slots=True)
class Lease:
    """Current holder of a lease; `left_ms` is negative once the lease has expired."""

    holder: str
    epoch: int
    left_ms: int


@dataclass(frozen=True, slots=True)
class LeaseRepository:
    """Leases by name; every acquisition raises the epoch by one."""

    connection: AsyncConnection

    async def now(self) -> datetime:
        """Returns the time of the database, to the millisecond."""
        result = await self.connection.execute(select(now_ms(self.connection)))
        return datetime.fromtimestamp(result.scalar_one() / 1000, UTC)

    async def acquire(self, name: str, holder: str, ttl_ms: int, after: int = 0) -> int | None:
        """Takes the lease; returns the new epoch, or None while another process has it.

        The holder itself, perhaps a former process of the same name, need not wait. `after` is the
        highest epoch ever seen: a database that lost its last commits must not reuse an epoch.
        """
        highest = case((table.c.epoch > after, table.c.epoch), else_=after)
        initial = {"name": name, "holder": holder, "epoch": 0, "expires_ms": 0}
        await self.connection.execute(
            insert(self.connection, table).values(**initial).on_conflict_do_nothing()
        )
        free = or_(table.c.expires_ms < now_ms(self.connection), table.c.holder == holder)
        acquisition = (
            update(table)
            .where(table.c.name == name, free)
            .values(
                holder=holder,
                epoch=highest + 1,
                expires_ms=now_ms(self.connection) + ttl_ms,
            )
            .returning(table.c.epoch)
        )
        epoch: int | None = (await self.connection.execute(acquisition)).scalar()
        return epoch

    async def renew(self, name: str, epoch: int, ttl_ms: int) -> bool:
        """Extends the lease; returns False once it has expired or belongs to a later epoch."""
        now = now_ms(self.connection)
        renewed = await self.connection.execute(
            update(table)
            .where(table.c.name == name, table.c.epoch == epoch, table.c.expires_ms >= now)
            .values(expires_ms=now + ttl_ms)
        )
        return renewed.rowcount == 1

    async def release(self, name: str, epoch: int) -> None:
        """Ends the lease, so that no process has to wait for its expiry."""
        await self.connection.execute(
            update(table).where(table.c.name == name, table.c.epoch == epoch).values(expires_ms=0)
        )

    async def current(self, name: str) -> Lease | None:
        """Returns the lease; None if no process ever had it."""
        query = select(
            table.c.holder, table.c.epoch, table.c.expires_ms - now_ms(self.connection)
        ).where(table.c.name == name)
        row = (await self.connection.execute(query)).one_or_none()
        return None if row is None else Lease(*row)

    async def is_current(self, name: str, epoch: int) -> bool:
        """Returns True if the epoch is current; it stays current until this transaction ends."""
        query = (
            select(table.c.epoch)
            .where(table.c.name == name, table.c.epoch == epoch)
            .with_for_update(read=True)
        )
        return (await self.connection.execute(query)).scalar() is not None
