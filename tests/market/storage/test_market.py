"""Snapshots and funding."""

from decimal import Decimal

import numpy as np

from app.foundation.sql.database import Database
from app.market.domain.models import Funding
from app.market.storage.market_data import MarketRepository, MarketSnapshot


async def test_snapshots_are_a_panel_of_open_interest(database: Database) -> None:
    async with database.write() as unit:
        assert await unit.get(MarketRepository).snapshot_times() == ()
        await unit.get(MarketRepository).save_snapshots([])
        for taken, level in ((1_000, 10.5), (2_000, None), (3_000, 12.25)):
            await unit.get(MarketRepository).save_snapshots(
                [
                    MarketSnapshot("btc", taken, level, 1.5, 2e9),
                    MarketSnapshot("eth", taken, 1.0, None, None),
                ]
            )
        await unit.get(MarketRepository).save_snapshots(
            [MarketSnapshot("eth", 3_000, 3.0, 0.1, None)]
        )
    async with database.read() as unit:
        times = await unit.get(MarketRepository).snapshot_times(since_ms=2_000)
        panel = await unit.get(MarketRepository).open_interest(["eth", "none", "btc"], times)
    assert times == (2_000, 3_000)
    np.testing.assert_array_equal(panel, [[1.0, np.nan, np.nan], [3.0, np.nan, 12.25]])
    async with database.write() as unit:
        assert await unit.get(MarketRepository).prune_snapshots(3_000) == 4
        assert await unit.get(MarketRepository).snapshot_times() == (3_000,)


async def test_D09_a_settled_rate_keeps_its_own_interval(database: Database) -> None:
    rates = (
        Funding(1_000, Decimal("-0.000123456789012345"), 28_800_000),
        Funding(2_000, Decimal("0.0001"), None),
    )
    async with database.write() as unit:
        await unit.get(MarketRepository).save_funding({"btc": rates, "eth": rates[:1], "none": ()})
        await unit.get(MarketRepository).save_funding(
            {"btc": [Funding(2_000, Decimal(1), 3_600_000)]}
        )
        await unit.get(MarketRepository).save_funding({})
    async with database.read() as unit:
        assert await unit.get(MarketRepository).funding(["btc", "xrp"]) == {"btc": rates}
        assert await unit.get(MarketRepository).funding(["btc", "eth"], 2_000) == {"btc": rates[1:]}
