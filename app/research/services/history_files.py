"""Reads market histories from parquet and CSV files in the format of the replay."""

import csv
import gzip
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.research.domain.history import CandleHistory, history_from_rows

REQUIRED: Final = ("symbol", "ts", "open", "high", "low", "close", "volume", "quote_volume")
OPTIONAL: Final = ("venue", "segment", "funding_rate")
_TEXTS: Final = ("symbol", "venue")
_DAY_MS: Final = 86_400_000
_SETTLEMENTS: Final = 3  # funding_rate is a fraction per 8 hours


def read_history(path: Path, venue: str | None = None) -> CandleHistory:
    """Reads daily candles; `venue` chooses among several.

    A listing is a symbol within a venue and a segment. Raises ValueError naming the file's fault.
    """
    columns = _read_columns(path)
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ValueError(f"{path.name} lacks the columns {', '.join(missing)}")
    venues = sorted(set(columns["venue"].tolist())) if "venue" in columns else []
    chosen = np.ones(len(columns["symbol"]), np.bool_)
    if venue is None and len(venues) > 1:
        raise ValueError(f"{path.name} has several venues; choose one of {', '.join(venues)}")
    if venue is not None:
        if venue not in venues:
            raise ValueError(f"{path.name} has no venue {venue}; it has {', '.join(venues)}")
        chosen &= columns["venue"] == venue
    prices = np.stack([columns[name].astype(float) for name in REQUIRED[2:6]])
    chosen &= np.all(np.isfinite(prices) & (prices > 0.0), axis=0)
    kept = {name: values[chosen] for name, values in columns.items()}
    listing = kept["symbol"].astype(str)
    if "segment" in kept:
        segment = kept["segment"].astype(np.int64)
        later = np.array([f"#{number}" if number else "" for number in segment.tolist()])
        listing = np.char.add(listing, later)
    fields = {name: kept[name].astype(float) for name in REQUIRED[2:7]}
    funding = kept["funding_rate"].astype(float) * _SETTLEMENTS if "funding_rate" in kept else None
    return history_from_rows(
        path.name if venue is None else f"{path.name} {venue}",
        listing,
        kept["ts"].astype(np.int64) // _DAY_MS * _DAY_MS,
        {**fields, "turnover": kept["quote_volume"].astype(float)},
        funding,
    )


def _read_columns(path: Path) -> Mapping[str, NDArray[Any]]:
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _read_csv(path)
    if name.endswith((".parquet", ".pq")):
        return _read_parquet(path)
    raise ValueError(f"{path.name}: a history is .parquet, .csv or .csv.gz")


def _read_csv(path: Path) -> Mapping[str, NDArray[Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        header = next(rows, [])
        body = list(rows)
    columns: dict[str, NDArray[Any]] = {}
    for index, name in enumerate(header):
        cells = [row[index] if index < len(row) else "" for row in body]
        if name in _TEXTS:
            columns[name] = np.array(cells, dtype=str)
        elif name in REQUIRED or name in OPTIONAL:
            columns[name] = np.array([_number(cell, name, at) for at, cell in enumerate(cells, 2)])
    return columns


def _number(cell: str, name: str, line: int) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        raise ValueError(f"line {line}: {name} must be a number") from None


def _read_parquet(path: Path) -> Mapping[str, NDArray[Any]]:
    parquet = load_parquet()
    present = set(parquet.read_schema(path).names)
    columns: dict[str, NDArray[Any]] = {}
    for name in (*REQUIRED, *OPTIONAL):
        if name in present:
            column = parquet.read_table(path, columns=[name])[name].combine_chunks()
            values = column.to_numpy(zero_copy_only=False)
            columns[name] = values.astype(str) if name in _TEXTS else values
    return columns


def load_parquet() -> Any:
    """Returns the parquet module of pyarrow. Raises ValueError without it."""
    return _load("pyarrow.parquet")


def load_pyarrow() -> Any:
    """Returns the module pyarrow. Raises ValueError without it."""
    return _load("pyarrow")


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError("parquet needs pyarrow: pip install 'my-symbols[replay]'") from error
