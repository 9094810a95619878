"""Reads parquet files with the optional pyarrow; loaded only for a parquet replay."""

from pathlib import Path

import numpy as np
from pyarrow import parquet

from app.sandbox.history.replay import OPTIONAL, REQUIRED, CandleTable, table_from_columns


def read_parquet(path: Path) -> CandleTable:
    """Candle columns of a parquet file; ValueError when one is missing."""
    present = set(parquet.read_schema(path).names)
    columns = {}
    for name in (*REQUIRED, *OPTIONAL):
        if name not in present:
            continue
        column = parquet.read_table(path, columns=[name])[name].combine_chunks()
        if name in ("symbol", "venue"):
            column = column.dictionary_encode()
            names = np.array(column.dictionary.to_pylist(), dtype=str)
            columns[name] = names[column.indices.to_numpy(zero_copy_only=False)]
        else:
            columns[name] = column.to_numpy(zero_copy_only=False)
    return table_from_columns(columns)
