"""Leases: who alone may do something at present, by the database's own clock."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import BigInteger, ColumnElement, case, cast, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import insert
from app.foundation.sql.tables import leases as table


def now_ms(connection: AsyncConnection) -> ColumnElement[int]:
    """Milliseconds since 1970 at the moment when the statement runs."""
    if connection.dialect.name == "sqlite":
        since_1970 = (func.julianday("now") - 2_440_587.5) * 86_400_000
    else:
        # Not now(): that is when the transaction began.
        since_1970 = func.extract("epoch", func.clock_timestamp()) * 1000
    return cast(since_1970, BigInteger)


@dataclass(frozen=True, slots=True)
class Lease:
    """As it stands; `left_ms` is negative once it has run out."""

    holder: str
    epoch: int
    left_ms: int


@dataclass(frozen=True, slots=True)
class LeaseRepository:
    """Every acquisition raises the epoch of its lease by one."""

    connection: AsyncConnection

    async def now(self) -> datetime:
        """By the database's clock, to the millisecond."""
        told = await self.connection.execute(select(now_ms(self.connection)))
        return datetime.fromtimestamp(told.scalar_one() / 1000, UTC)

    async def acquire(self, name: str, holder: str, ttl_ms: int, after: int = 0) -> int | None:
        """The epoch from now on, or None while somebody else has it.

        Who holds it already, perhaps in an earlier life under the same name, need not wait.
        `after` is the highest epoch that was ever seen: a database that has lost its last commits
        must not give one away again.
        """
        highest = case((table.c.epoch > after, table.c.epoch), else_=after)
        fresh = {"name": name, "holder": holder, "epoch": 0, "expires_ms": 0}
        await self.connection.execute(
            insert(self.connection, table).values(**fresh).on_conflict_do_nothing()
        )
        free = or_(table.c.expires_ms < now_ms(self.connection), table.c.holder == holder)
        taken = (
            update(table)
            .where(table.c.name == name, free)
            .values(
                holder=holder,
                epoch=highest + 1,
                expires_ms=now_ms(self.connection) + ttl_ms,
            )
            .returning(table.c.epoch)
        )
        epoch: int | None = (await self.connection.execute(taken)).scalar()
        return epoch

    async def renew(self, name: str, epoch: int, ttl_ms: int) -> bool:
        """False once it has run out or belongs to a later epoch: then it must be acquired."""
        now = now_ms(self.connection)
        renewed = await self.connection.execute(
            update(table)
            .where(table.c.name == name, table.c.epoch == epoch, table.c.expires_ms >= now)
            .values(expires_ms=now + ttl_ms)
        )
        return renewed.rowcount == 1

    async def release(self, name: str, epoch: int) -> None:
        """Nobody has to wait for it to run out."""
        await self.connection.execute(
            update(table).where(table.c.name == name, table.c.epoch == epoch).values(expires_ms=0)
        )

    async def present(self, name: str) -> Lease | None:
        """None where nobody ever had it."""
        wanted = select(
            table.c.holder, table.c.epoch, table.c.expires_ms - now_ms(self.connection)
        ).where(table.c.name == name)
        row = (await self.connection.execute(wanted)).one_or_none()
        return None if row is None else Lease(*row)

    async def is_present(self, name: str, epoch: int) -> bool:
        """Whether that is still the epoch; it stays so until this transaction has ended."""
        wanted = (
            select(table.c.epoch)
            .where(table.c.name == name, table.c.epoch == epoch)
            .with_for_update(read=True)
        )
        return (await self.connection.execute(wanted)).scalar() is not None
