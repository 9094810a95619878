"""Stores one-time tickets as hashes."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.security.domain.tickets import MAX_TICKETS, OneTimeTicket
from app.security.storage.tables import stream_tickets as table

# One statement takes a ticket, so that two processes can never both get it.
_TAKE: Final = table.delete().where(table.c.hash == bindparam("for_hash")).returning(*table.c)
_SURPLUS: Final = (
    select(table.c.hash)
    .where(table.c.actor == bindparam("for_actor"))
    .order_by(table.c.expires_at.desc(), table.c.hash)
    .offset(MAX_TICKETS - 1)
)
# SQLite knows OFFSET only beside LIMIT.
_TRIM: Final = table.delete().where(
    or_(
        table.c.expires_at <= bindparam("until", type_=table.c.expires_at.type),
        table.c.hash.in_(_SURPLUS.limit(1_000_000)),
    )
)


@dataclass(frozen=True, slots=True)
class OneTimeTicketRepository:
    """Unused tickets."""

    connection: AsyncConnection

    async def add(self, ticket: OneTimeTicket) -> None:
        row = {one.name: getattr(ticket, one.name) for one in fields(ticket)}
        await self.connection.execute(table.insert(), row)

    async def take(self, ticket_hash: str) -> OneTimeTicket | None:
        """Deletes a ticket and returns it, for one caller only; None if there is none."""
        row = (await self.connection.execute(_TAKE, {"for_hash": ticket_hash})).one_or_none()
        if row is None:
            return None
        return OneTimeTicket(**{one.name: getattr(row, one.name) for one in fields(OneTimeTicket)})

    async def trim(self, actor: str, now: datetime) -> None:
        """Deletes expired tickets, and the oldest of `actor` beyond MAX_TICKETS - 1."""
        await self.connection.execute(_TRIM, {"for_actor": actor, "until": now})
