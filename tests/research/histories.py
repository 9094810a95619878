"""Synthetic daily histories for tests of the evidence."""

import numpy as np

from app.market.domain.models import Interval
from app.market.domain.panel import Panel
from app.market.domain.sectors import AssetClass, CapCategory, Classification, SectorTable
from app.research.domain.history import CandleHistory

# Every synthetic coin has a sector of its own, so that the sector limit binds nowhere.
SECTORS = SectorTable(
    {
        f"C{number:02d}": Classification(AssetClass.COIN, f"s{number}", CapCategory.SMALL)
        for number in range(100)
    }
)
FIRST_DAY = 18_993  # 2022-01-01


def random_history(
    rows: int = 260,
    names: int = 24,
    seed: int = 1,
    drift: np.ndarray | None = None,
    ends: dict[int, int] | None = None,
) -> CandleHistory:
    """Creates random prices with one market factor; `ends` maps a column to its last row.

    `drift` (T, N) is added to the log returns. Column 0 is BTC.
    """
    generator = np.random.default_rng(seed)
    market = generator.normal(0.0, 0.02, (rows, 1))
    own = generator.normal(0.0, 0.01 + 0.03 * generator.random(names), (rows, names))
    returns = market + own + (0.0 if drift is None else drift)
    close = 50.0 * np.exp(np.cumsum(returns, axis=0))
    opened = np.vstack([np.full((1, names), 50.0), close[:-1]]) * np.exp(
        generator.normal(0.0, 0.001, close.shape)
    )
    high = np.maximum(opened, close) * (1.0 + generator.random(close.shape) * 0.01)
    low = np.minimum(opened, close) * (1.0 - generator.random(close.shape) * 0.01)
    turnover = np.exp(generator.normal(17.5, 0.3, close.shape))
    fields = {"open": opened, "high": high, "low": low, "close": close,
              "volume": turnover / close, "turnover": turnover}  # fmt: skip
    for column, last in (ends or {}).items():
        for values in fields.values():
            values[last + 1 :, column] = np.nan
    step = Interval.DAY.ms
    days = (np.arange(rows, dtype=np.int64) + FIRST_DAY) * step
    symbols = ("BTCUSDT", *(f"C{number:02d}USDT" for number in range(1, names)))
    return CandleHistory.of("random", Panel(Interval.DAY, symbols, days, **fields))
