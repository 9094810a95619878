"""Market history with a point-in-time universe: daily bars, first and last bar, known funding."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Final

import numpy as np

from app.configuration.domain.model import EligibilitySettings
from app.market.domain.eligibility import MEDIAN_DAYS
from app.market.domain.models import Floats, Interval, Ints
from app.market.domain.panel import FIELDS, Bools, Panel
from app.market.domain.sectors import AssetClass, SectorTable

QUOTES: Final = ("USDT", "USDC", "BUSD", "USD")
_SEGMENT: Final = "#"  # separates a symbol from the number of a later listing


def base_of(column: str) -> str:
    """Returns the base coin of a column: BTCUSDT and BTCUSDT#2 are BTC."""
    symbol = column.split(_SEGMENT, maxsplit=1)[0]
    return next(
        (symbol[: -len(one)] for one in QUOTES if symbol.endswith(one) and symbol != one), symbol
    )


@dataclass(frozen=True, slots=True, eq=False)
class CandleHistory:
    """Daily bars of T days and N listings; each listing is a column of its own.

    A symbol listed again, in another price unit or at another venue, is another column, so that no
    return crosses the change. `funding` (T, N) is the sum of the rates settled within a bar, NaN
    where unknown.
    """

    name: str
    panel: Panel
    funding: Floats
    first: Ints  # (N,) row of the first bar
    last: Ints  # (N,) row of the last bar
    carried: Floats  # (T, N) last close known at each row; NaN before the first bar
    data_hash: str

    @staticmethod
    def of(name: str, panel: Panel, funding: Floats | None = None) -> "CandleHistory":
        """Creates the history of a panel. Raises ValueError for a column without bars."""
        known = np.isfinite(panel.close)
        if not known.size or not known.any(axis=0).all():
            raise ValueError("every column of a history needs at least one bar")
        rates = np.full(panel.close.shape, np.nan) if funding is None else funding
        digest = hashlib.sha256("\n".join(panel.symbols).encode())
        digest.update(np.ascontiguousarray(panel.opened_ms).tobytes())
        for values in (*(getattr(panel, field) for field in FIELDS), rates):
            digest.update(np.ascontiguousarray(values).tobytes())
        rows = np.arange(len(known))[:, None]
        newest = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
        carried = np.take_along_axis(panel.close, np.maximum(newest, 0), axis=0)
        return CandleHistory(
            name,
            panel,
            rates,
            np.argmax(known, axis=0),
            len(known) - 1 - np.argmax(known[::-1], axis=0),
            np.where(newest >= 0, carried, np.nan),
            digest.hexdigest(),
        )

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.panel.symbols

    @property
    def rows(self) -> int:
        return len(self.panel.opened_ms)

    def day_of(self, row: int) -> date:
        """Returns the UTC day of the bar of `row`."""
        return datetime.fromtimestamp(int(self.panel.opened_ms[row]) / 1000, UTC).date()

    def closed_at(self, row: int) -> datetime:
        """Returns the time at which the bar of `row` closed."""
        return datetime.fromtimestamp(self.closed_ms(row) / 1000, UTC)

    def closed_ms(self, row: int) -> int:
        return int(self.panel.opened_ms[row]) + Interval.DAY.ms

    def row_from(self, at: datetime) -> int:
        """Returns the first row whose bar opens at or after `at`; T beyond the last one."""
        return int(np.searchsorted(self.panel.opened_ms, int(at.timestamp() * 1000)))

    def window(self, row: int, bars: int) -> Panel:
        """Returns the last `bars` bars known at the close of `row`."""
        chosen = slice(max(0, row + 1 - bars), row + 1)
        fields = {name: getattr(self.panel, name)[chosen] for name in FIELDS}
        return replace(self.panel, opened_ms=self.panel.opened_ms[chosen], **fields)

    def until(self, row: int) -> "CandleHistory":
        """Returns the history as it was known at the close of `row`."""
        known = np.flatnonzero(self.first <= row)
        fields = {name: getattr(self.panel, name)[: row + 1, known] for name in FIELDS}
        symbols = tuple(self.symbols[place] for place in known.tolist())
        panel = replace(
            self.panel, symbols=symbols, opened_ms=self.panel.opened_ms[: row + 1], **fields
        )
        return CandleHistory.of(self.name, panel, self.funding[: row + 1, known])

    def has_ended(self, row: int) -> Bools:
        """Returns (N,) listings whose last bar lies before `row`."""
        return np.asarray(self.last < row, np.bool_)


def coin_columns(table: SectorTable, symbols: tuple[str, ...]) -> Bools:
    """Returns (N,) listings of coins: the funnel excludes every other kind of asset."""
    return np.array(
        [table.classify(base_of(name)).asset_class is AssetClass.COIN for name in symbols], np.bool_
    )


def eligibility(history: CandleHistory, floors: EligibilitySettings, coins: Bools) -> Bools:
    """Returns (T, N) eligible listings at the close of each bar, by the floors of the funnel.

    Bars, the turnover of the day and its median over the last 30 days count up to that bar. The
    rules that need a quote or a listing document cannot fail here. Rows before 30 bars have no
    median and are not eligible.
    """
    known = np.isfinite(history.panel.close)
    bars = known.cumsum(axis=0)
    turnover = history.panel.turnover
    least = float(floors.min_turnover)
    median = np.full(known.shape, np.nan)
    if len(known) >= MEDIAN_DAYS:
        with np.errstate(invalid="ignore"):
            windows = np.lib.stride_tricks.sliding_window_view(turnover, MEDIAN_DAYS, axis=0)
            median[MEDIAN_DAYS - 1 :] = np.median(windows, axis=2)
    enough = bars >= floors.min_daily_bars
    return np.asarray(known & coins & enough & (turnover >= least) & (median >= least), np.bool_)


def died(history: CandleHistory, first_row: int, last_row: int) -> tuple[str, ...]:
    """Returns listings whose last bar lies within the rows, before the last row of the data."""
    return tuple(
        name
        for name, last in zip(history.symbols, history.last.tolist(), strict=True)
        if first_row <= last < last_row
    )


def history_from_rows(
    name: str,
    listing: np.ndarray,
    opened_ms: Ints,
    fields: Mapping[str, Floats],
    funding: Floats | None = None,
) -> CandleHistory:
    """Creates a history from bars in any order; (R,) arrays, one row per bar and listing.

    Raises ValueError for a bar off the daily grid or given twice, and without any bar.
    """
    if not len(listing):
        raise ValueError("the history has no bars")
    names, column = np.unique(listing, return_inverse=True)
    step = Interval.DAY.ms
    if np.any(opened_ms % step):
        raise ValueError("a daily bar must open at midnight UTC")
    first = int(opened_ms.min()) // step
    row = opened_ms // step - first
    shape = (int(row.max()) + 1, len(names))
    place = row * shape[1] + column
    if len(np.unique(place)) != len(place):
        raise ValueError("the history has a bar twice")
    grids = {}
    for field in FIELDS:
        grid = np.full(shape, np.nan)
        grid[row, column] = fields[field]
        grids[field] = grid
    rates = None
    if funding is not None:
        rates = np.full(shape, np.nan)
        rates[row, column] = funding
    opened = (np.arange(shape[0], dtype=np.int64) + first) * step
    panel = Panel(Interval.DAY, tuple(names.tolist()), opened, **grids)
    return CandleHistory.of(name, panel, rates)
