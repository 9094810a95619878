"""Time of the correlations of 600 symbols; prints one table, asserts nothing."""

import time
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from app.configuration.domain.model import CorrelationBasis
from app.market.domain.models import Floats, Interval
from app.market.domain.panel import Panel
from app.market.domain.return_statistics import correlations
from benchmarks import result_table

SYMBOLS = ("BTCUSDT", *(f"C{number:03}USDT" for number in range(599)))
BARS, TURNS = 200, 50
YOUNG_DAYS = 45  # the history of a tenth of the symbols


def panel() -> Panel:
    """Random walks; a tenth of the symbols has a short history, another tenth lost some days."""
    dice = np.random.default_rng(7)
    opened = np.arange(BARS, dtype=np.int64) * Interval.DAY.ms
    close = 10.0 * np.exp(np.cumsum(dice.normal(0.0, 0.03, (BARS, len(SYMBOLS))), axis=0))
    close[:-YOUNG_DAYS, ::10] = np.nan
    close[-12:-10, 5::10] = np.nan
    close[:, 0] = np.linspace(10.0, 12.0, BARS) + dice.normal(0.0, 0.1, BARS)
    return Panel(Interval.DAY, SYMBOLS, opened, close, close, close, close, close, close)


def took_ms(daily: Panel, basis: CorrelationBasis, days: int) -> list[float]:
    """Milliseconds of each turn, in order."""
    took = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        correlations(daily, SYMBOLS, basis, days)
        took.append((time.perf_counter() - begun) * 1000)
    return took


def product_ms(days: int) -> list[float]:
    """The peer of the same run: one plain matrix product of that size, as the lower bound."""
    values: Floats = np.random.default_rng(1).normal(size=(days, len(SYMBOLS)))
    took = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        values.T @ values
        took.append((time.perf_counter() - begun) * 1000)
    return took


def main() -> None:
    """Measures each basis over 30 days and over 90."""
    daily = panel()
    table = Table("correlation of 600 symbols", "days", "median ms", "worst ms", "x bare product")
    for days in (30, 90):
        floor = median(product_ms(days))
        for basis in CorrelationBasis:
            took = took_ms(daily, basis, days)
            table.add_row(
                basis.value,
                str(days),
                f"{median(took):.2f}",
                f"{max(took):.2f}",
                f"{median(took) / floor:.1f}",
            )
            result_table.note(
                result_table.Row(
                    f"correlation of 600 symbols, {basis.value}, {days} days, beside a product",
                    f"{median(took):.2f} ms",
                    f"{floor:.2f} ms",
                    f"{median(took) / floor:.1f} x",
                )
            )
    Console().print(table)


if __name__ == "__main__":
    main()
