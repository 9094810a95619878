"""Revision of all stored inputs of portfolio reads, in one statement."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.storage.tables import configuration_versions
from app.portfolio.storage.tables import (
    PORTFOLIO_ID,
    portfolio,
    portfolio_history,
    replacement_confirmations,
)

_confirmed = and_(
    replacement_confirmations.c.portfolio_id == portfolio.c.id,
    replacement_confirmations.c.is_confirmed,
)
_NOW: Final = (
    select(
        portfolio.c.version,
        select(func.max(portfolio_history.c.seq))
        .where(portfolio_history.c.aggregate == PORTFOLIO_ID)
        .scalar_subquery()
        .label("history"),
        select(portfolio_history.c.hash)
        .where(portfolio_history.c.aggregate == PORTFOLIO_ID)
        .order_by(portfolio_history.c.seq.desc())
        .limit(1)
        .scalar_subquery()
        .label("tip"),
        select(func.max(configuration_versions.c.version)).scalar_subquery().label("configuration"),
        replacement_confirmations.c.symbol.label("leaving"),
    )
    .select_from(portfolio.outerjoin(replacement_confirmations, _confirmed))
    .where(portfolio.c.id == PORTFOLIO_ID)
)


@dataclass(frozen=True, slots=True)
class Revision:
    """Equal revisions mean no commit in between; None means no row yet."""

    portfolio: int
    history: int | None  # weights, switch, locks and booked results are events of it
    configuration: int | None
    tip: str | None  # hash of the last event: numbers come again where a failover lost commits
    leaving: frozenset[str]  # members whose replacement is confirmed, which is no event


@dataclass(frozen=True, slots=True)
class RevisionRepository:
    """Reads the revision that validates the state in memory."""

    connection: AsyncConnection

    async def now(self) -> Revision:
        rows = (await self.connection.execute(_NOW)).all()
        first = rows[0]
        return Revision(
            first.version,
            first.history,
            first.configuration,
            first.tip,
            frozenset(row.leaving for row in rows if row.leaving is not None),
        )
