"""Days of runs in parquet files: one file a run, named by its hash."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.market.domain.models import Floats
from app.research.services.backtest import BacktestStep


def require_parquet() -> None:
    """Raises ValueError without pyarrow."""
    _library("pyarrow.parquet")


def write_run(folder: Path, name: str, steps: Sequence[BacktestStep]) -> Path:
    """Writes the days of a run as a whole file; a file of that name is replaced."""
    arrow, parquet = _library("pyarrow"), _library("pyarrow.parquet")
    table = arrow.table(
        {
            "date": arrow.array([one.date for one in steps], arrow.timestamp("us", "UTC")),
            "portfolio_value": arrow.array([one.portfolio_value for one in steps], arrow.float64()),
            "daily_return": arrow.array([one.daily_return for one in steps], arrow.float64()),
            "portfolio_changes": arrow.array(
                [_changes(one) for one in steps], arrow.string()
            ),  # JSON: symbol -> [old, new] in percent
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = _path(folder, name), folder / f"{name}.unfinished"
    parquet.write_table(table, unfinished)
    unfinished.replace(path)
    return path


def read_returns(folder: Path, name: str) -> Floats | None:
    """Returns (T - 1,) daily returns of a run; None without its file.

    Raises ValueError for a file that is no run.
    """
    path = _path(folder, name)
    if not path.is_file():
        return None
    try:
        table = _library("pyarrow.parquet").read_table(path, columns=["daily_return"])
    except (OSError, ValueError):  # pyarrow's errors derive from ValueError
        raise ValueError(f"{path.name} is no file of a run; remove it") from None
    values = table["daily_return"].to_pylist()[1:]
    return np.array([np.nan if one is None else one for one in values], np.float64)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.parquet"


def _changes(step: BacktestStep) -> str:
    changes = {name: list(weights) for name, weights in step.portfolio_changes.items()}
    return json.dumps(changes, sort_keys=True)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError("parquet needs pyarrow: pip install 'my-symbols[replay]'") from None
