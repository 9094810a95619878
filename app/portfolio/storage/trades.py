"""Booked results: one immutable row per trade id, and their totals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Row, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.decimal_math import EXACT
from app.foundation.sql.statements import upsert
from app.portfolio.domain.models import Member
from app.portfolio.domain.returns import (
    BookedResult,
    BookedSinceInclusion,
    BookedTotal,
    Trade,
)
from app.portfolio.storage.tables import booked_totals
from app.portfolio.storage.tables import trades as table

# Built once: building a statement takes as long as executing it.
# In the order of a trade's fields: positional access to fifty rows is faster than by name.
_FIELDS: Final = tuple(table.c[name] for name in BookedResult.__slots__)
_TRADES: Final = select(*_FIELDS, table.c.event_seq, table.c.booked_at)
_ONE: Final = _TRADES.where(table.c.trade_id == bindparam("wanted"))
_NEW: Final = table.insert()
_SUMS: Final = select(booked_totals).order_by(booked_totals.c.symbol_id, booked_totals.c.currency)
_SUMS_OF: Final = _SUMS.where(booked_totals.c.symbol_id == bindparam("symbol"))


@dataclass(frozen=True, slots=True)
class TradeRepository:
    """Stores booked results and their totals."""

    connection: AsyncConnection

    async def book(self, trade: Trade) -> Decimal:
        """Store a trade with a new id under the portfolio's lock.

        Returns the realised total of its symbol, as in `realized`.
        """
        result = trade.result
        row = {name: getattr(result, name) for name in BookedResult.__slots__}
        await self.connection.execute(
            _NEW, [{**row, "event_seq": trade.event_seq, "booked_at": trade.booked_at}]
        )
        found = await self.connection.execute(_SUMS_OF, {"symbol": result.symbol_id})
        sums = {one.currency: one for one in map(_total, found)}
        before = sums.get(result.currency)
        after = BookedTotal.of(result) if before is None else before.plus(result)
        await self.connection.execute(
            upsert(self.connection, booked_totals),
            [{name: getattr(after, name) for name in BookedTotal.__slots__}],
        )
        sums[result.currency] = after
        return _by_symbol(sums.values())[result.symbol_id]

    async def totals(self) -> tuple[BookedTotal, ...]:
        """Totals of all booked results by symbol and currency."""
        return tuple(_total(row) for row in await self.connection.execute(_SUMS))

    async def find(self, trade_id: str) -> Trade | None:
        row = (await self.connection.execute(_ONE, {"wanted": trade_id})).first()
        return None if row is None else _trade(row)

    async def page(
        self,
        before_seq: int | None,
        limit: int,
        *,
        symbol_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[Trade, ...]:
        """Trades that occurred at or after `since` and before `until`, last booked first."""
        wanted = _between(since, until).order_by(table.c.event_seq.desc()).limit(limit)
        if before_seq is not None:
            wanted = wanted.where(table.c.event_seq < before_seq)
        if symbol_id is not None:
            wanted = wanted.where(table.c.symbol_id == symbol_id)
        return tuple(_trade(row) for row in await self.connection.execute(wanted))

    async def between(self, since: datetime | None, until: datetime | None) -> tuple[Trade, ...]:
        """Trades that occurred at or after `since` and before `until`, in the order of booking."""
        rows = await self.connection.execute(_between(since, until).order_by(table.c.event_seq))
        return tuple(_trade(row) for row in rows)

    async def since_inclusion(
        self, members: Sequence[Member], before: BookedSinceInclusion | None = None
    ) -> BookedSinceInclusion:
        """Booked results of each member from its inclusion on.

        `before` is an earlier result: of its memberships only newer bookings are read.
        """
        included_at = {one.symbol_id: one.included_at for one in members}
        known = BookedSinceInclusion({}, {}) if before is None else before
        same = {key for key, at in included_at.items() if known.included_at.get(key) == at}
        booked = BookedSinceInclusion(
            {key: one for key, one in known.totals.items() if key in same}, included_at, known.seq
        )
        newer = _TRADES.where(table.c.symbol_id.in_(same), table.c.event_seq > known.seq)
        others = included_at.keys() - same
        entered = _between(min((included_at[key] for key in others), default=None), None)
        of_others = entered.where(table.c.symbol_id.in_(others))
        for wanted in (*([newer] if same else ()), *([of_others] if others else ())):
            rows = await self.connection.execute(wanted.order_by(table.c.event_seq))
            booked = booked.plus(map(_trade, rows))
        return booked

    async def realized(self) -> dict[str, Decimal]:
        """Realised results after fees and funding, by symbol id, in its settlement currency."""
        return _by_symbol(await self.totals())


def _by_symbol(sums: Iterable[BookedTotal]) -> dict[str, Decimal]:
    totals: dict[str, Decimal] = {}
    for one in sums:
        totals[one.symbol_id] = EXACT.add(totals.get(one.symbol_id, Decimal(0)), one.net)
    return totals


def _between(since: datetime | None, until: datetime | None) -> Any:
    wanted = _TRADES
    if since is not None:
        wanted = wanted.where(table.c.occurred_at >= since)
    if until is not None:
        wanted = wanted.where(table.c.occurred_at < until)
    return wanted


def _total(row: Row[Any]) -> BookedTotal:
    return BookedTotal(**{name: getattr(row, name) for name in BookedTotal.__slots__})


def _trade(row: Sequence[Any]) -> Trade:
    *fields, event_seq, booked_at = row
    return Trade(BookedResult(*fields), event_seq, booked_at)
