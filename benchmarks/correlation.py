"""How long 30-day correlations of 600 symbols take; prints one table, asserts nothing."""

import time
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from app.domain.configuration import CorrelationBasis
from app.domain.market import Interval
from app.domain.measures import correlations
from app.domain.panel import Panel

SYMBOLS = ("BTCUSDT", *(f"C{number:03}USDT" for number in range(599)))
DAYS, BARS, TURNS = 30, 200, 50


def panel() -> Panel:
    """Random walks; a tenth of the symbols has a short history."""
    dice = np.random.default_rng(7)
    opened = np.arange(BARS, dtype=np.int64) * Interval.DAY.ms
    close = 10.0 * np.exp(np.cumsum(dice.normal(0.0, 0.03, (BARS, len(SYMBOLS))), axis=0))
    close[:-15, ::10] = np.nan
    close[:, 0] = np.linspace(10.0, 12.0, BARS) + dice.normal(0.0, 0.1, BARS)
    return Panel(Interval.DAY, SYMBOLS, opened, close, close, close, close, close, close)


def main() -> None:
    """Measures each basis."""
    daily = panel()
    table = Table("correlation of 600 symbols over 30 days", "median ms", "worst ms")
    for basis in CorrelationBasis:
        took = []
        for _ in range(TURNS):
            begun = time.perf_counter()
            correlations(daily, SYMBOLS, basis, DAYS)
            took.append((time.perf_counter() - begun) * 1000)
        table.add_row(basis.value, f"{median(took):.2f}", f"{max(took):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
