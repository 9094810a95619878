"""Hourly snapshots of open interest, recorded here because the exchange keeps no history."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

import numpy as np

from app.foundation.sql.database import BULK_STATEMENT_S, Database
from app.market.domain.symbols import SymbolEntry
from app.market.services.feed_leader import Fence, no_fencing
from app.market.services.snapshot import MarketMoment
from app.market.services.state import LiveMarket, OpenInterestLog
from app.market.storage.market_data import MarketRepository, MarketSnapshot

HOUR_MS: Final = 3_600_000
IN_MEMORY_MS: Final = 16 * 24 * HOUR_MS  # the factors look back a week
RETENTION_MS: Final = 60 * 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class OpenInterestRecorder:
    """Thins open interest to one row an hour, in memory and in the database."""

    database: Database
    live: LiveMarket
    fence: Fence = no_fencing

    async def record(self, moment: MarketMoment) -> None:
        """Records the values of `moment`, unless its hour has a row already."""
        now_ms, log = moment.server_ms, moment.market.open_interest
        if len(log.times_ms) and now_ms // HOUR_MS <= int(log.times_ms[-1]) // HOUR_MS:
            return
        taken: list[MarketSnapshot] = []
        row: dict[str, float] = {}
        for entry in moment.known.index.entries:
            stats = moment.market.stats.get(entry.contract.code)
            if stats is None or moment.mono - stats.mono > moment.limits.ticker_age_s:
                continue
            coins = _float(moment.open_interest(entry.contract))
            if coins is not None:
                row[entry.contract.code] = coins
            taken.append(
                MarketSnapshot(
                    entry.symbol_id,
                    now_ms,
                    coins,
                    _float(stats.value.mark_price),
                    _float(stats.value.turnover_24h),
                )
            )
        async with self.database.write(BULK_STATEMENT_S) as unit:
            await self.fence(unit)
            await unit.get(MarketRepository).save_snapshots(taken)
            await unit.get(MarketRepository).prune_snapshots(now_ms - RETENTION_MS)
        market = self.live.market
        log = market.open_interest.with_row(now_ms, row, IN_MEMORY_MS)
        self.live.publish(replace(market, open_interest=log))

    async def load(self, entries: Sequence[SymbolEntry]) -> None:
        """Loads the snapshots of the last days."""
        now_ms = self.live.server_clock.now_ms()
        async with self.database.read() as unit:
            stored = await unit.get(MarketRepository).snapshot_times(now_ms - IN_MEMORY_MS)
            times = [taken for taken in stored if taken <= now_ms]
            values = await unit.get(MarketRepository).open_interest(
                [one.symbol_id for one in entries], times
            )
        codes = tuple(one.contract.code for one in entries)
        log = OpenInterestLog(codes, np.array(times, dtype=np.int64), values)
        self.live.publish(replace(self.live.market, open_interest=log))


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
