"""What outcomes are read from: who was scored, which contracts are over, hourly bars."""

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
    """A contract that has or had this name."""

    symbol_id: str
    symbol: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class HourlyBarRepository:
    """Read only."""

    connection: AsyncConnection

    async def universe(self, at: datetime) -> frozenset[str]:
        """Symbols that were scored on the newest complete board kept of the market up to `at`."""
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
        """All that ever had one of these names, the older first."""
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
        """Those opened within one of `spans` [start, end) in epoch milliseconds, ascending."""
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
        found: dict[str, list[Bar]] = {}
        for row in await self.connection.execute(wanted):
            bar = Bar(row.opened_ms, row.open, row.close)
            found.setdefault(row.symbol_id, []).append(bar)
        return found

    async def closes(self, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], float]:
        """Of bars in which somebody traded, by symbol id and opening time in epoch milliseconds."""
        if not wanted:
            return {}
        asked = select(candles.c.symbol_id, candles.c.opened_ms, candles.c.close).where(
            candles.c.interval_min == Interval.HOUR.value,
            candles.c.volume > 0,
            or_(
                *(
                    and_(candles.c.symbol_id == symbol_id, candles.c.opened_ms == opened_ms)
                    for symbol_id, opened_ms in sorted(wanted)
                )
            ),
        )
        rows = await self.connection.execute(asked)
        return {(row.symbol_id, row.opened_ms): row.close for row in rows}
