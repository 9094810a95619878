"""Parts of a downloaded history: one parquet file per contract, joined to one file per interval."""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.market.domain.data_quality import EMPTY
from app.market.domain.models import CandleSeries, Floats, Interval
from app.research.services.history_files import load_parquet, load_pyarrow

INTERVALS: Final = {"1d": Interval.DAY, "1h": Interval.HOUR}  # those of the option
_NAMES: Final = {interval: name for name, interval in INTERVALS.items()}
_FACTS: Final = ("code", "symbol", "venue", "begin_ms", "end_ms", "refused")
_FIELDS: Final = ("open", "high", "low", "close", "volume", "turnover")


@dataclass(frozen=True, slots=True, eq=False)
class HistoryPart:
    """Closed bars of one contract, complete for opening times in [begin_ms, end_ms).

    `funding` (T,) is the rate of each bar as a fraction per 8 hours, NaN where unknown. `refused`
    counts broken bars that the exchange sent.
    """

    code: str
    symbol: str
    venue: str
    begin_ms: int
    end_ms: int
    refused: int = 0
    series: CandleSeries = EMPTY
    funding: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, slots=True)
class PartFolder:
    """Parts of one interval below `directory`, and the file that joins them.

    Each file is written beside its place and then renamed, so that a kill leaves the former one.
    """

    directory: Path
    interval: Interval

    @property
    def output(self) -> Path:
        return self.directory / f"candles-{_NAMES[self.interval]}.parquet"

    @property
    def has_funding(self) -> bool:
        """True if a bar is long enough for a sum of settlements."""
        return self.interval is Interval.DAY

    def codes(self) -> list[str]:
        """Returns the contract codes with a part, in order."""
        return sorted(one.stem for one in self._parts.glob("*.parquet"))

    def read(self, code: str) -> HistoryPart | None:
        """Returns a part; None without one. Raises ValueError for a damaged one."""
        path = self._path(code)
        if not path.exists():
            return None
        try:
            table = load_parquet().read_table(path, partitioning=None)
            facts = table.schema.metadata or {}
            known = {name: facts[name.encode()].decode() for name in _FACTS}
            columns = {name: table[name].to_numpy() for name in table.column_names[2:]}
            return HistoryPart(
                known["code"],
                known["symbol"],
                known["venue"],
                int(known["begin_ms"]),
                int(known["end_ms"]),
                int(known["refused"]),
                CandleSeries(
                    columns["ts"],
                    *(columns[name] for name in (*_FIELDS[:-1], "quote_volume")),
                ),
                columns["funding_rate"] if self.has_funding else np.empty(0),
            )
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(f"{path} is damaged; delete it and start again") from error

    def write(self, part: HistoryPart) -> None:
        """Stores a part in place of the former one."""
        self._parts.mkdir(parents=True, exist_ok=True)
        table = self._table(part)
        facts = {name: str(getattr(part, name)) for name in _FACTS}
        marked = table.replace_schema_metadata(facts)
        _write(self._path(part.code), marked.schema, [marked])

    def join(self, visit: Callable[[HistoryPart], None]) -> None:
        """Writes all parts into one file, one at a time, and shows each to `visit`."""
        pyarrow = load_pyarrow()
        bars = [("ts", pyarrow.int64()), *((name, pyarrow.float64()) for name in self._numbers())]
        names = [("symbol", pyarrow.string()), ("venue", pyarrow.string())]

        def tables() -> Iterator[Any]:
            for code in self.codes():
                part = self.read(code)
                if part is not None:
                    visit(part)
                    yield self._table(part)

        _write(self.output, pyarrow.schema([*names, *bars]), tables())

    def _numbers(self) -> tuple[str, ...]:
        rates = ("funding_rate",) if self.has_funding else ()
        return (*_FIELDS[:-1], "quote_volume", *rates)

    def _table(self, part: HistoryPart) -> Any:
        values: Mapping[str, Floats] = {
            **{name: getattr(part.series, name) for name in _FIELDS[:-1]},
            "quote_volume": part.series.turnover,
            **({"funding_rate": part.funding} if self.has_funding else {}),
        }
        pyarrow, rows = load_pyarrow(), len(part.series)
        return pyarrow.table(
            {
                "symbol": pyarrow.array([part.symbol] * rows, pyarrow.string()),
                "venue": pyarrow.array([part.venue] * rows, pyarrow.string()),
                "ts": pyarrow.array(part.series.opened_ms, pyarrow.int64()),
                **{name: pyarrow.array(values[name]) for name in self._numbers()},
            }
        )

    @property
    def _parts(self) -> Path:
        return self.output.with_suffix(".parts")

    def _path(self, code: str) -> Path:
        return self._parts / f"{code}.parquet"


def _write(path: Path, schema: Any, tables: Iterable[Any]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with load_parquet().ParquetWriter(partial, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Creates a directory and locks it; the lock ends with the process.

    Raises ValueError while another process has the lock, OSError for a bad path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another download writes into {directory}") from None
        yield
    finally:
        os.close(descriptor)
