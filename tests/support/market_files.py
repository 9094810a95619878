"""Real candles for golden numbers, where the folder of market data is there."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from app.market.domain.models import Floats

MARKET = Path(__file__).resolve().parents[2] / "../shared/market"
DAILY_PANEL = MARKET / "daily_panel.parquet"
HOURLY_PANEL = MARKET / "hourly_spot_2022.parquet"
L2_SNAPSHOTS = MARKET / "l2_snapshots.json.gz"
FIELDS = ("ts", "open", "high", "low", "close", "volume", "quote_volume")

needs_daily_panel = pytest.mark.skipif(
    not DAILY_PANEL.exists(), reason="the folder of real market data is not here"
)


@cache
def perpetual(symbol: str) -> dict[str, Floats]:
    """Daily bars of one perpetual from 2024-01-10 to 2025-06-30; (T, 1) per field."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(
        DAILY_PANEL,
        columns=list(FIELDS),
        filters=[("symbol", "==", symbol), ("venue", "==", "binance_usdm_perp")],
    ).sort_by("ts")
    return {field: np.asarray(table[field].to_numpy(), np.float64)[:, None] for field in FIELDS}


BARS = ("high", "low", "close", "volume")


def whole_panel(file: Path) -> dict[str, Floats]:
    """(T, N) of every market in a file, NaN where it has no bar."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(file, columns=["symbol", "venue", "ts", *BARS])
    names = [f"{venue} {symbol}" for symbol, venue in zip(
        table["symbol"].to_pylist(), table["venue"].to_pylist(), strict=True
    )]  # fmt: skip
    _, columns = np.unique(names, return_inverse=True)
    _, rows = np.unique(table["ts"].to_numpy(), return_inverse=True)
    panel = {}
    for name in BARS:
        panel[name] = np.full((rows.max() + 1, columns.max() + 1), np.nan)
        panel[name][rows, columns] = table[name].to_numpy()
    return panel


TEN = ("BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LINK", "AVAX", "LTC", "BCH")


def ten_perpetuals() -> Floats:
    """Daily returns of ten perpetuals at equal weights, the last 250 up to 2025-06-30."""
    closes = np.concatenate([perpetual(f"{name}USDT")["close"] for name in TEN], axis=1)[-251:]
    return np.asarray((closes[1:] / closes[:-1] - 1.0).mean(axis=1), np.float64)
