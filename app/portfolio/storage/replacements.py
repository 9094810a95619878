"""Stored confirmations of replacements and vacancies."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import upsert
from app.portfolio.domain.replacement import ConfirmationCount, Vacancy
from app.portfolio.storage.portfolio import MembershipStatus
from app.portfolio.storage.tables import (
    PORTFOLIO_ID,
    portfolio_members,
    replacement_confirmations,
    vacancies,
)


@dataclass(frozen=True, slots=True)
class ReplacementRepository:
    """Stores confirmation counts and vacancies; writes only under the portfolio lock."""

    connection: AsyncConnection

    async def confirmation_counts(self) -> dict[str, ConfirmationCount]:
        """Confirmation counts by member."""
        table = replacement_confirmations
        wanted = select(table).where(table.c.portfolio_id == PORTFOLIO_ID)
        rows = await self.connection.execute(wanted.order_by(table.c.symbol))
        return {
            row.symbol: ConfirmationCount(
                row.symbol,
                row.candidate,
                row.confirmations,
                row.input_hash,
                row.counted_at,
                row.is_confirmed,
            )
            for row in rows
        }

    async def keep(self, tallies: Iterable[ConfirmationCount]) -> None:
        """Replace all stored counts by these."""
        table = replacement_confirmations
        await self.connection.execute(table.delete().where(table.c.portfolio_id == PORTFOLIO_ID))
        rows = [
            {
                "portfolio_id": PORTFOLIO_ID,
                "symbol": tally.symbol,
                "candidate": tally.candidate,
                "confirmations": tally.count,
                "input_hash": tally.input_hash,
                "is_confirmed": tally.is_confirmed,
                "counted_at": tally.counted_at,
            }
            for tally in tallies
        ]
        if rows:
            await self.connection.execute(table.insert(), rows)

    async def confirmed(self) -> frozenset[str]:
        """Members whose replacement is confirmed and not yet executed."""
        table = replacement_confirmations
        wanted = select(table.c.symbol).where(
            table.c.portfolio_id == PORTFOLIO_ID, table.c.is_confirmed
        )
        return frozenset((await self.connection.execute(wanted)).scalars())

    async def forget(self, symbol: str) -> None:
        """Delete the count of a member that left."""
        table = replacement_confirmations
        of = (table.c.portfolio_id == PORTFOLIO_ID) & (table.c.symbol == symbol)
        await self.connection.execute(table.delete().where(of))

    async def vacate(self, vacancy: Vacancy) -> None:
        """Store the vacant seat of a member that left without a replacement."""
        table = vacancies
        await self.connection.execute(
            upsert(self.connection, table),
            {
                "portfolio_id": PORTFOLIO_ID,
                "symbol": vacancy.symbol,
                "reason": vacancy.reason,
                "vacated_at": vacancy.vacated_at,
            },
        )

    async def vacancies(self) -> tuple[Vacancy, ...]:
        """Vacant seats, the longest vacant first."""
        table = vacancies
        wanted = (
            select(table.c.symbol, table.c.reason, table.c.vacated_at)
            .where(table.c.portfolio_id == PORTFOLIO_ID)
            .order_by(table.c.vacated_at, table.c.symbol)
        )
        rows = await self.connection.execute(wanted)
        return tuple(Vacancy(row.symbol, row.reason, row.vacated_at) for row in rows)

    async def fill_vacancies(self, filled: Iterable[Vacancy]) -> None:
        """Delete filled seats."""
        symbols = [one.symbol for one in filled]
        if symbols:
            table = vacancies
            of = (table.c.portfolio_id == PORTFOLIO_ID) & table.c.symbol.in_(symbols)
            await self.connection.execute(table.delete().where(of))

    async def last_swap(self) -> datetime | None:
        """Time of the last replacement."""
        table = portfolio_members
        wanted = select(func.max(table.c.left_at)).where(
            table.c.portfolio_id == PORTFOLIO_ID, table.c.status == MembershipStatus.REPLACED.value
        )
        found: datetime | None = (await self.connection.execute(wanted)).scalar()
        return found

    async def open_swaps(self, since: datetime) -> frozenset[str]:
        """Symbol ids of both sides of the swaps whose new member is in, or left after `since`."""
        old, new = portfolio_members.alias(), portfolio_members.alias()
        joined = (new.c.portfolio_id == old.c.portfolio_id) & (new.c.included_at == old.c.left_at)
        wanted = (
            select(old.c.symbol_id, new.c.symbol_id)
            .join(new, joined)
            .where(
                old.c.portfolio_id == PORTFOLIO_ID,
                old.c.status == MembershipStatus.REPLACED.value,
                or_(new.c.left_at.is_(None), new.c.left_at >= since),
            )
        )
        rows = await self.connection.execute(wanted)
        return frozenset(symbol_id for row in rows for symbol_id in row)
