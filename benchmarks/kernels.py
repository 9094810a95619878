"""Indicators of 600 symbols beside a memcpy of their bars, TA-Lib and pandas, all in one run.

Times are of the processor, single thread; the rounds of all take turns and the smallest of each
counts, so that what else the machine does falls on nobody alone. Prints one table, asserts nothing.
"""

import gc
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import talib
from rich.console import Console
from rich.table import Table

from app.configuration.domain.sections import Family
from app.market.domain.models import Floats
from app.research.domain.correlation_kernel import MEAN_CORRELATION
from app.research.domain.every_bar import MEASURES, composite_at_every_bar
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.factors import FACTORS
from app.scoring.domain.kernels.indicators import INDICATORS, TAKE, fresh_state
from app.scoring.domain.kernels.last_bar import at_last_bar
from benchmarks import rows

SYMBOLS, BARS, YEAR = 600, 500, 8760
ROUNDS, YEAR_ROUNDS, PANDAS_SYMBOLS = 60, 5, 20
CHUNK = 64  # rows at a time, as `every_bar` takes them
HOURLY = AlgorithmSpec(
    "hourly",
    dict(zip(Family, (1.0, 0.0, 0.0, 0.0), strict=True)),
    tuple(factor for factor in FACTORS if factor.name in MEASURES),
)


@dataclass(frozen=True)
class Line:
    """Processor seconds (NaN where it is no time), and the ratio to a peer that the goal is of."""

    what: str
    of: str
    seconds: float
    ratio: float = np.nan
    goal: float = np.nan
    at_least: bool = False
    unit: str = "x"

    @property
    def found(self) -> rows.Row:
        if np.isnan(self.goal):
            return rows.Row(f"{self.what}, {self.of}", f"{self.seconds * 1e3:.3f} ms")
        met = self.ratio >= self.goal if self.at_least else self.ratio <= self.goal
        return rows.Row(
            f"{self.what}, {self.of}",
            "" if np.isnan(self.seconds) else f"{self.seconds * 1e3:.3f} ms",
            ratio=f"{self.ratio:.2f} {self.unit}",
            goal=f"{'>=' if self.at_least else '<='} {self.goal:g} {self.unit}",
            met=bool(met),
        )


def bars(rows: int) -> list[Floats]:
    """High, low, close, volume and log returns, (T, N) each."""
    dice = np.random.default_rng(7)
    returns = dice.normal(0.0, 0.01, (rows, SYMBOLS))
    close = 100.0 * np.exp(np.cumsum(returns, axis=0))
    high, low = close * (1.0 + 0.01 * dice.random(close.shape)), close * 0.99
    returns[0] = np.nan
    return [high, low, close, dice.random(close.shape), returns]


def fastest(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Processor seconds of each, the smallest of its rounds; they take turns."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            begun = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - begun)
    return best


def memcpy(fields: list[Floats]) -> Callable[[], None]:
    room = [np.zeros_like(field) for field in fields]

    def copy() -> None:
        for field, other in zip(fields, room, strict=True):
            np.copyto(other, field)

    return copy


def by_talib(high: Floats, low: Floats, close: Floats, volume: Floats, returns: Floats) -> None:
    """The same nine of one symbol, on arrays of its own that lie in one piece."""
    talib.RSI(close, 14)
    talib.MACD(close, 12, 26, 9)
    talib.ATR(high, low, close, 14)
    talib.BBANDS(close, 20, 2.0, 2.0)
    talib.SMA(close, 20)
    talib.OBV(close, volume)
    talib.STDDEV(returns, 24)


def by_pandas(frame: pd.DataFrame) -> None:
    """The same nine of one symbol as they are commonly written down."""
    close, change = frame["close"], frame["close"].diff()
    gain = change.clip(lower=0.0).ewm(alpha=1 / 14, adjust=False).mean()
    loss = (-change.clip(upper=0.0)).ewm(alpha=1 / 14, adjust=False).mean()
    _ = 100.0 - 100.0 / (1.0 + gain / loss)
    macd = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    _ = macd - macd.ewm(span=9, adjust=False).mean()
    before = close.shift()
    spans = [
        frame["high"] - frame["low"],
        (frame["high"] - before).abs(),
        (frame["low"] - before).abs(),
    ]
    _ = pd.concat(spans, axis=1).max(axis=1).ewm(alpha=1 / 14, adjust=False).mean()
    mean, sd = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    _ = (close - (mean - 2.0 * sd)) / (4.0 * sd)
    _ = (np.sign(change).fillna(0.0) * frame["volume"]).cumsum()
    _ = np.log(close / before).rolling(24).std()


def universe() -> list[Line]:
    """The newest values of 600 symbols with 500 bars."""
    fields = bars(BARS)
    columns = [[np.ascontiguousarray(field[:, j]) for field in fields] for j in range(SYMBOLS)]
    names = ("high", "low", "close", "volume")
    frames = [
        pd.DataFrame(dict(zip(names, column, strict=False))) for column in columns[:PANDAS_SYMBOLS]
    ]
    room = np.zeros(SYMBOLS)
    known = fields[4][1:]

    def ours() -> None:
        high, low, close, volume, returns = fields
        at_last_bar(high, low, close, volume, returns)
        MEAN_CORRELATION(returns[1:], room)

    def talib_loop() -> None:
        for column in columns:
            by_talib(*column)
        np.corrcoef(known.T)

    def pandas_way() -> None:
        for frame in frames:
            by_pandas(frame)

    ours()
    pairs = pd.DataFrame(known)
    took = fastest({"memcpy": memcpy(fields), "ours": ours}, ROUNDS * 5)
    took |= fastest({"ours again": ours, "talib": talib_loop}, ROUNDS)
    took |= fastest({"pandas": pandas_way, "pandas pairs": pairs.corr}, 3)
    # A second of it says enough; a symbol more costs what a symbol costs.
    took["pandas"] = took["pandas"] / PANDAS_SYMBOLS * SYMBOLS + took["pandas pairs"]
    mine, copy = took["ours"], took["memcpy"]
    each, frame = took["talib"], took["pandas"]
    return [
        Line("memcpy of the five arrays", "600 x 500", copy),
        Line("nine indicators, mean correlation", "600 x 500", mine, mine / copy, 2.5),
        Line("TA-Lib by symbol, and matrix", "600 x 500", each, each / mine, 25.0, at_least=True),
        Line(
            "pandas by symbol, and matrix", "20, x 30", frame, frame / mine, 1000.0, at_least=True
        ),
    ]


def year() -> list[Line]:
    """Every bar of a year."""
    fields = bars(YEAR)
    told = np.zeros((INDICATORS, CHUNK, SYMBOLS))
    rest = np.zeros((INDICATORS, YEAR % CHUNK, SYMBOLS))

    def kernels() -> None:
        state = fresh_state(SYMBOLS)
        for first in range(0, YEAR, CHUNK):
            here = slice(first, first + CHUNK)
            room = told if first + CHUNK <= YEAR else rest
            high, low, close, volume, returns = (field[here] for field in fields)
            TAKE(state, high, low, close, volume, returns, room, True)

    def composite() -> None:
        composite_at_every_bar(*fields, HOURLY)

    works = {"memcpy": memcpy(fields), "kernels": kernels, "composite": composite}
    for work in works.values():
        work()
    took = fastest(works, YEAR_ROUNDS)
    copy, factors = took["memcpy"], len(HOURLY.factors)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    every, whole = took["kernels"], took["composite"]
    per = whole / copy / factors
    return [
        Line("memcpy of the five arrays", "600 x 8760", copy),
        Line("nine indicators at every bar", "600 x 8760", every, every / copy, 6.0),
        Line(f"composite of {factors}, per factor", "600 x 8760", whole / factors, per, 30.0),
        Line("largest size of the process", "600 x 8760", np.nan, size, 0.8, unit="GB"),
    ]


def main() -> None:
    """The year first: its size must not be that of what pandas brings along."""
    later = year()
    gc.collect()
    table = Table("what", "processor", "ratio", "goal", title="kernels")
    for line in (*universe(), *later):
        one = line.found
        table.add_row(one.what, one.figure, one.ratio, one.goal)
        rows.note(one)
    Console().print(table)


if __name__ == "__main__":
    main()
