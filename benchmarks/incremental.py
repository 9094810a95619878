"""One closed candle of 600 symbols beside talipp, which goes on from candle to candle too.

Processor time, single thread; both get the same candles. Prints one table, asserts nothing.
"""

import time
from collections.abc import Sequence
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from talipp.indicators import ATR, BB, MACD, OBV, RSI, SMA, StdDev
from talipp.ohlcv import OHLCV

from app.market.domain.models import Floats
from app.research.domain.ring import Ring
from benchmarks import rows

SYMBOLS, CAPACITY = 600, 500
WARM, CANDLES = 600, 2000
TALIPP_SYMBOLS, TALIPP_CANDLES = 20, 100


class Talipp:
    """The same nine of one symbol."""

    def __init__(self) -> None:
        self.closes = (RSI(14), MACD(12, 26, 9), BB(20, 2.0), SMA(20))
        self.bars = (ATR(14), OBV())
        self.moves = StdDev(24)

    def add(self, bar: Sequence[float], move: float) -> None:
        high, low, close, volume = bar
        for one in self.closes:
            one.add(close)
        for one in self.bars:
            one.add(OHLCV(close, high, low, close, volume))
        self.moves.add(move)


def candles(many: int) -> tuple[Floats, Floats, Floats, Floats]:
    dice = np.random.default_rng(7)
    close = 100.0 * np.exp(np.cumsum(dice.normal(0.0, 0.01, (many, SYMBOLS)), axis=0))
    return close * 1.01, close * 0.99, close, dice.random(close.shape)


def ours_us() -> list[float]:
    """Of each candle of all symbols."""
    high, low, close, volume = candles(WARM + CANDLES)
    ring = Ring(SYMBOLS, CAPACITY)
    took = []
    for row in range(WARM + CANDLES):
        begun = time.perf_counter_ns()
        ring.close_bar(high[row], low[row], close[row], volume[row])
        took.append((time.perf_counter_ns() - begun) / 1e3)
    return took[WARM:]


def talipp_us() -> float:
    """Processor time of one candle of all symbols; a symbol more costs what a symbol costs."""
    fields = candles(WARM + TALIPP_CANDLES)
    moves = np.diff(np.log(fields[2]), axis=0, prepend=np.log(fields[2][:1]))
    each = [Talipp() for _ in range(TALIPP_SYMBOLS)]
    best = float("inf")
    for row in range(WARM + TALIPP_CANDLES):
        begun = time.process_time_ns()
        for column, one in enumerate(each):
            one.add([float(field[row, column]) for field in fields], float(moves[row, column]))
        if row >= WARM:
            best = min(best, (time.process_time_ns() - begun) / 1e3)
    return best / TALIPP_SYMBOLS * SYMBOLS


def main() -> None:
    """Measures both."""
    ours, peer = ours_us(), talipp_us()
    table = Table("what", "us a candle", "ratio", "goal", title="one candle of 600 symbols")
    table.add_row("ours, median", f"{median(ours):.0f}", "", "<= 100 us")
    table.add_row("ours, fastest", f"{min(ours):.0f}", "", "")
    ratio = peer / median(ours)
    table.add_row("talipp, fastest", f"{peer:.0f}", f"{ratio:.0f} x ours", ">= 300 x ours")
    Console().print(table)
    goal = "<= 100 us, >= 300 x"
    rows.note(
        rows.Row(
            "one closed candle of 600 symbols, beside talipp", f"{median(ours):.0f} us",
            f"{peer:.0f} us", f"{ratio:.0f} x", goal, median(ours) <= 100.0 and ratio >= 300.0,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
