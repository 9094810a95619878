"""Candles out of a file, cut down to one venue and one listing per symbol, by day."""

import csv
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.sandbox.bars import Bools, Floats, Ints
from app.sandbox.universe import DAY_MS

REQUIRED = ("symbol", "ts", "open", "high", "low", "close", "volume", "quote_volume")
OPTIONAL = ("venue", "segment")


@dataclass(frozen=True, slots=True)
class CandleTable:
    """Rows of candles (R,): `ohlc` (R, 4) prices, `volume` base coins, `value` quote coins.

    Sorted by symbol, then time. `day` is the epoch day of the opening.
    """

    symbol: NDArray[np.str_]
    venue: NDArray[np.str_]
    segment: Ints
    day: Ints
    ohlc: Floats
    volume: Floats
    value: Floats

    def where(self, keep: Bools | Ints) -> "CandleTable":
        """Only the rows kept."""
        return CandleTable(
            self.symbol[keep],
            self.venue[keep],
            self.segment[keep],
            self.day[keep],
            self.ohlc[keep],
            self.volume[keep],
            self.value[keep],
        )


def table_from_columns(columns: Mapping[str, NDArray[Any]]) -> CandleTable:
    """A table from arrays by column name; ValueError names the columns that are missing.

    Rows without a finite price are left out.
    """
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(f"the replay file lacks the columns {', '.join(missing)}")
    symbol = columns["symbol"]
    time = columns["ts"].astype(np.int64)
    empty = np.full(symbol.size, "", dtype="<U1")
    table = CandleTable(
        symbol=symbol,
        venue=columns.get("venue", empty),
        segment=columns.get("segment", np.zeros(symbol.size)).astype(np.int64),
        day=time // DAY_MS,
        ohlc=np.stack([columns[name].astype(float) for name in REQUIRED[2:6]], axis=1),
        volume=columns["volume"].astype(float),
        value=columns["quote_volume"].astype(float),
    )
    codes = np.unique(symbol, return_inverse=True)[1]
    order: Ints = np.lexsort((time, codes))
    sound: Bools = np.all(np.isfinite(table.ohlc) & (table.ohlc > 0), axis=1)
    return table.where(order[sound[order]])


def read_csv(path: Path) -> CandleTable:
    """The candle columns of a CSV file, gzipped or not; empty volumes count as nothing traded."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        header = next(rows, [])
        body = list(rows)
    columns: dict[str, NDArray[Any]] = {}
    for index, name in enumerate(header):
        if name in ("symbol", "venue"):
            columns[name] = np.array([row[index] for row in body], dtype=str)
        elif name in REQUIRED or name in OPTIONAL:
            columns[name] = np.array([float(row[index] or 0.0) for row in body])
    return table_from_columns(columns)


def one_venue(table: CandleTable, day: int | None) -> tuple[CandleTable, int]:
    """The rows of the venue that covers the day (perpetuals preferred), and that day.

    Without a day: the last but one of the venue that reaches furthest. ValueError when no row
    covers the day or nothing follows it.
    """
    if table.day.size == 0:
        raise ValueError("the replay file has no candles")
    covering = table.day == (int(table.day.max()) if day is None else day)
    venues, counts = np.unique(table.venue[covering], return_counts=True)
    if venues.size == 0:
        raise ValueError("the replay file has no candles on the day to start from")
    best = max(zip(venues.tolist(), counts.tolist(), strict=True), key=_perpetual_then_size)
    rows = table.where(table.venue == best[0])
    last = int(rows.day.max())
    day = last - 1 if day is None else day
    if day >= last or not bool((rows.day <= day).any()):
        raise ValueError("the replay must start before the last day of the file")
    return rows, day


def _perpetual_then_size(venue: tuple[str, int]) -> tuple[bool, int]:
    return "perp" in venue[0], venue[1]


def one_listing(table: CandleTable, day: int) -> CandleTable:
    """Each symbol's rows of the segment in force on the day; those that ended before are gone.

    A symbol that starts later keeps its first segment.
    """
    keep = np.zeros(table.day.size, dtype=bool)
    starts = np.flatnonzero(np.r_[True, table.symbol[1:] != table.symbol[:-1]])
    for start, stop in zip(starts, [*starts[1:], table.day.size], strict=True):
        days = table.day[start:stop]
        if days[-1] < day:
            continue
        at = max(0, int(np.searchsorted(days, day, side="right")) - 1)
        keep[start:stop] = table.segment[start:stop] == table.segment[start + at]
    return table.where(keep)


def by_day(table: CandleTable) -> CandleTable:
    """One row a day: finer candles are put together, daily ones stay as they are."""
    first = np.r_[True, (table.symbol[1:] != table.symbol[:-1]) | (table.day[1:] != table.day[:-1])]
    starts = np.flatnonzero(first)
    ends = np.r_[starts[1:], table.day.size] - 1
    daily = table.where(first)
    ohlc = np.stack(
        [
            table.ohlc[starts, 0],
            np.maximum.reduceat(table.ohlc.max(axis=1), starts),
            np.minimum.reduceat(table.ohlc.min(axis=1), starts),
            table.ohlc[ends, 3],
        ],
        axis=1,
    )
    return replace(
        daily,
        ohlc=ohlc,
        volume=np.add.reduceat(np.nan_to_num(table.volume), starts),
        value=np.add.reduceat(np.nan_to_num(table.value), starts),
    )
