"""Repository of open interest snapshots and settled funding rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.statements import insert, upsert
from app.market.domain.models import Floats, Funding
from app.market.storage.tables import funding_rates, market_snapshots


@dataclass(frozen=True, slots=True)
class MarketSnapshot:
    """Values of one symbol at one instant; None is unknown."""

    symbol_id: str
    taken_ms: int  # equal for all symbols of one refresh
    open_interest: float | None  # base coins
    mark_price: float | None
    turnover_24h: float | None  # quote currency


@dataclass(frozen=True, slots=True)
class MarketRepository:
    """Snapshots by instant, funding by symbol."""

    connection: AsyncConnection

    async def save_snapshots(self, snapshots: Sequence[MarketSnapshot]) -> None:
        """Saves snapshots; a later one of the same symbol and instant replaces the earlier one."""
        if not snapshots:
            return
        rows = [
            {
                "symbol_id": one.symbol_id,
                "taken_ms": one.taken_ms,
                "open_interest": one.open_interest,
                "mark_price": one.mark_price,
                "turnover_24h": one.turnover_24h,
            }
            for one in snapshots
        ]
        await self.connection.execute(upsert(self.connection, market_snapshots), rows)

    async def snapshot_times(self, since_ms: int = 0) -> tuple[int, ...]:
        """Returns the instants at or after `since_ms`, oldest first."""
        table = market_snapshots
        statement = (
            select(table.c.taken_ms)
            .where(table.c.taken_ms >= since_ms)
            .distinct()
            .order_by(table.c.taken_ms)
        )
        return tuple((await self.connection.execute(statement)).scalars())

    async def open_interest(self, symbol_ids: Sequence[str], times: Sequence[int]) -> Floats:
        """Returns (S, N) base coins at `times` for `symbol_ids`, NaN where unknown."""
        table = market_snapshots
        out = np.full((len(times), len(symbol_ids)), np.nan)
        statement = select(table.c.taken_ms, table.c.symbol_id, table.c.open_interest).where(
            table.c.taken_ms.in_(times), table.c.open_interest.is_not(None)
        )
        row_of = {taken: at for at, taken in enumerate(times)}
        column_of = {symbol_id: at for at, symbol_id in enumerate(symbol_ids)}
        for taken, symbol_id, value in await self.connection.execute(statement):
            if symbol_id in column_of:
                out[row_of[taken], column_of[symbol_id]] = value
        return out

    async def snapshots_of(
        self, symbol_id: str, start_ms: int, end_ms: int, limit: int
    ) -> tuple[MarketSnapshot, ...]:
        """Returns the first `limit` snapshots of a symbol taken in [start_ms, end_ms)."""
        table = market_snapshots
        statement = (
            select(table)
            .where(
                table.c.symbol_id == symbol_id,
                table.c.taken_ms >= start_ms,
                table.c.taken_ms < end_ms,
            )
            .order_by(table.c.taken_ms)
            .limit(limit)
        )
        return tuple(
            MarketSnapshot(
                symbol_id, row.taken_ms, row.open_interest, row.mark_price, row.turnover_24h
            )
            for row in await self.connection.execute(statement)
        )

    async def prune_snapshots(self, before_ms: int) -> int:
        """Deletes snapshots taken before `before_ms`; returns the number of rows."""
        table = market_snapshots
        deleted = await self.connection.execute(table.delete().where(table.c.taken_ms < before_ms))
        return deleted.rowcount

    async def save_funding(self, rates: Mapping[str, Sequence[Funding]]) -> None:
        """Saves settled rates by symbol id; a stored rate stays unchanged."""
        rows = [
            {
                "symbol_id": symbol_id,
                "settled_ms": one.settled_ms,
                "rate": one.rate,
                "interval_ms": one.interval_ms,
            }
            for symbol_id, settled in rates.items()
            for one in settled
        ]
        if rows:
            statement = insert(self.connection, funding_rates).on_conflict_do_nothing()
            await self.connection.execute(statement, rows)

    async def funding(
        self, symbol_ids: Sequence[str], since_ms: int = 0
    ) -> dict[str, tuple[Funding, ...]]:
        """Returns settled rates at or after `since_ms`, oldest first, for symbols that have any."""
        table = funding_rates
        statement = (
            select(table)
            .where(table.c.symbol_id.in_(symbol_ids), table.c.settled_ms >= since_ms)
            .order_by(table.c.symbol_id, table.c.settled_ms)
        )
        rates_by_symbol: dict[str, list[Funding]] = {}
        for row in await self.connection.execute(statement):
            one = Funding(row.settled_ms, row.rate, row.interval_ms)
            rates_by_symbol.setdefault(row.symbol_id, []).append(one)
        return {symbol_id: tuple(rates) for symbol_id, rates in rates_by_symbol.items()}
