"""Data for signal outcomes: scored symbols, ended contracts and hourly bars."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.market.domain.models import TRADING_ENDED, Bar, ContractStatus, Interval
from app.market.storage.tables import candles, contracts
from app.scoring.domain.board import CardStatus
from app.scoring.storage.tables import IS_PROVISIONAL, scoring_runs, symbol_scores


@dataclass(frozen=True, slots=True)
class Listing:
    """A contract that has or had this symbol."""

    symbol_id: str
    symbol: str
    is_delisted: bool


@dataclass(frozen=True, slots=True)
class HourlyBarRepository:
    """Reads scored universes, listings and hourly bars."""

    connection: AsyncConnection

    async def universe(self, at: datetime) -> frozenset[str]:
        """Symbols scored on the newest stored complete board with market data up to `at`."""
        runs, scores = scoring_runs, symbol_scores
        newest = (
            select(runs.c.run_id)
            .where(runs.c.as_of <= at, ~IS_PROVISIONAL)
            .order_by(runs.c.calculated_at.desc(), runs.c.run_id.desc())
            .limit(1)
            .scalar_subquery()
        )
        wanted = select(scores.c.symbol).where(
            scores.c.run_id == newest, scores.c.status == CardStatus.SCORED.value
        )
        return frozenset(row.symbol for row in await self.connection.execute(wanted))

    async def listings(self, names: Iterable[str]) -> tuple[Listing, ...]:
        """All listings, past and present, of these symbols, oldest first."""
        wanted = (
            select(contracts.c.id, contracts.c.symbol, contracts.c.status, contracts.c.vanished_at)
            .where(contracts.c.symbol.in_([*names]))
            .order_by(contracts.c.first_seen, contracts.c.id)
        )
        return tuple(
            Listing(
                row.id,
                row.symbol,
                row.vanished_at is not None or ContractStatus(row.status) in TRADING_ENDED,
            )
            for row in await self.connection.execute(wanted)
        )

    async def bars(
        self, symbol_ids: Sequence[str], spans: Iterable[tuple[int, int]]
    ) -> dict[str, list[Bar]]:
        """Bars opened within one of `spans` [start, end) in epoch milliseconds, ascending."""
        opened = candles.c.opened_ms
        wanted = (
            select(candles.c.symbol_id, opened, candles.c.open, candles.c.close)
            .where(
                candles.c.symbol_id.in_(symbol_ids),
                candles.c.interval_min == Interval.HOUR.value,
                or_(*(and_(opened >= start, opened < end) for start, end in spans)),
            )
            .order_by(candles.c.symbol_id, opened)
        )
        bars: dict[str, list[Bar]] = {}
        for row in await self.connection.execute(wanted):
            bar = Bar(row.opened_ms, row.open, row.close)
            bars.setdefault(row.symbol_id, []).append(bar)
        return bars

    async def closes(self, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], float]:
        """Closes of bars with trades, by symbol id and opening time in epoch milliseconds."""
        if not wanted:
            return {}
        query = select(candles.c.symbol_id, candles.c.opened_ms, candles.c.close).where(
            candles.c.interval_min == Interval.HOUR.value,
            candles.c.volume > 0,
            or_(
                *(
                    and_(candles.c.symbol_id == symbol_id, candles.c.opened_ms == opened_ms)
                    for symbol_id, opened_ms in sorted(wanted)
                )
            ),
        )
        rows = await self.connection.execute(query)
        return {(row.symbol_id, row.opened_ms): row.close for row in rows}
