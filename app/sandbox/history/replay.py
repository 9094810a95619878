"""Market around the daily candles of a real file.

Only the daily candles come from the file. Hourly bars, prices within a day, books, premium, funding
and open interest are generated around them: they fit each day's candle and prove nothing more.
"""

import csv
import gzip
import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.sandbox.history.bars import CLOSE, HIGH, LOW, OPEN, Bars, Bools, DailyHistory, Floats, Ints
from app.sandbox.history.synthetic import daily_premium, swinging_interest
from app.sandbox.history.universe import DAY_MS, KNOWN, ListedContract, multiplier_for

REQUIRED = ("symbol", "ts", "open", "high", "low", "close", "volume", "quote_volume")
OPTIONAL = ("venue", "segment")
_MIN_EPOCH_MS = 1e11  # 1973 in milliseconds, the year 5138 in seconds
_MAX_EPOCH_MS = 1e14
_TIME_FORM = (
    "a time: epoch seconds, epoch milliseconds, or ISO 8601 such as 2025-01-31, one form in the"
    " whole column"
)


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
        """Select rows."""
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
    """Create a table from arrays by column name; numbers may be text.

    Rows without a finite price are left out. ValueError names missing columns, and row, column and
    expected form of a value that cannot be read.
    """
    require_columns(columns)
    symbol = columns["symbol"]
    time = to_milliseconds("ts", columns["ts"])
    segment = to_floats("segment", columns.get("segment", np.zeros(symbol.size)))
    empty = np.full(symbol.size, "", dtype="<U1")
    table = CandleTable(
        symbol=symbol,
        venue=columns.get("venue", empty),
        segment=segment.astype(np.int64),
        day=time // DAY_MS,
        ohlc=np.stack([to_floats(name, columns[name]) for name in REQUIRED[2:6]], axis=1),
        volume=to_floats("volume", columns["volume"]),
        value=to_floats("quote_volume", columns["quote_volume"]),
    )
    codes = np.unique(symbol, return_inverse=True)[1]
    order: Ints = np.lexsort((time, codes))
    sound: Bools = np.all(np.isfinite(table.ohlc) & (table.ohlc > 0), axis=1)
    return table.where(order[sound[order]])


def require_columns(names: Collection[str]) -> None:
    """ValueError for a file that lacks a required column."""
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ValueError(f"the replay file lacks the columns {', '.join(missing)}")


def to_floats(name: str, values: NDArray[Any]) -> Floats:
    """Numbers of a column; empty text is zero. ValueError names the row of another text."""
    if values.dtype.kind not in "OU":
        return values.astype(float)
    texts = np.where(values == "", "0", values)
    try:
        return texts.astype(float)
    except (TypeError, ValueError):
        row = next(row for row, text in enumerate(texts) if not _is_number(text))
        raise _unreadable(row, name, values[row], "a number such as 0.0123") from None


def to_milliseconds(name: str, values: NDArray[Any]) -> Ints:
    """Times of a column in epoch milliseconds: of dates, ISO 8601 text, epoch s or epoch ms.

    All numbers of a column have one unit, seconds below 10^11. A time without a zone is UTC.
    ValueError names the row of another value.
    """
    if values.dtype.kind == "M":
        return values.astype("datetime64[ms]").astype(np.int64)
    if values.dtype.kind in "OU" and values.size and not _is_number(values[0]):
        return np.array([_iso_milliseconds(name, row, one) for row, one in enumerate(values)])
    numbers = to_floats(name, values) if values.dtype.kind != "U" else _epochs(name, values)
    is_known = np.isfinite(numbers) & (numbers >= 0) & (numbers < _MAX_EPOCH_MS)
    is_ms = numbers >= _MIN_EPOCH_MS
    odd = ~is_known | (is_ms != is_ms[:1])
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise _unreadable(row, name, values[row], _TIME_FORM)
    scale = 1 if is_ms.any() else 1000
    return np.rint(numbers * scale).astype(np.int64)


def _epochs(name: str, texts: NDArray[np.str_]) -> Floats:
    try:
        return texts.astype(float)
    except ValueError:
        row = next(row for row, text in enumerate(texts) if not _is_number(text))
        raise _unreadable(
            row, name, texts[row], f"{_TIME_FORM}, one form in the whole column"
        ) from None


def _iso_milliseconds(name: str, row: int, value: object) -> int:
    try:
        moment = datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise _unreadable(row, name, value, _TIME_FORM) from None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _unreadable(row: int, column: str, value: object, form: str) -> ValueError:
    return ValueError(
        f"row {row + 1} after the header, column {column}: {value!s:.40} is not {form}"
    )


def read_csv(path: Path) -> CandleTable:
    """Candle columns of a CSV file, gzipped or not; an empty volume is zero."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="", encoding="utf-8-sig") as lines:
        rows = csv.reader(lines)
        header = [name.strip() for name in next(rows, [])]
        body = [row for row in rows if row]
    require_columns(header)
    for row, cells in enumerate(body):
        if len(cells) != len(header):
            raise ValueError(
                f"row {row + 1} after the header has {len(cells)} values, not {len(header)}"
            )
    columns = {
        name: np.array([row[index] for row in body], dtype=str)
        for index, name in enumerate(header)
        if name in {*REQUIRED, *OPTIONAL}
    }
    return table_from_columns(columns)


def one_venue(table: CandleTable, day: int | None) -> tuple[CandleTable, int]:
    """Rows of the venue that covers the day (perpetuals preferred), and that day.

    Without a day: the last but one of the venue that reaches furthest. ValueError when no row
    covers the day or none follows it.
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
    """Rows of the segment that contains the day; symbols that ended before are dropped.

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
    """Aggregate finer candles to one row a day; daily ones stay as they are."""
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


# The exchange starts ten minutes after the close of the first replayed day.
START_AFTER_MS = 600_000
PAST_DAYS = 800
MAX_DIGITS = 12
# Usual notice of a delisting. The file knows the last day from the start; an earlier notice
# would keep every coin that fails later out of the portfolio in advance.
ANNOUNCED_MS = 3 * DAY_MS
QUOTES = ("USDT", "USDC", "BUSD", "USD")


def read_table(path: Path) -> CandleTable:
    """Candles of a parquet, CSV or gzipped CSV file; ValueError for anything else."""
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return read_csv(path)
    if name.endswith((".parquet", ".pq")):
        try:
            reader = importlib.import_module("app.sandbox.history.parquet")
        except ImportError as error:
            raise ValueError(
                "reading parquet needs pyarrow: install the 'replay' extra, or give a CSV"
            ) from error
        table: CandleTable = reader.read_parquet(path)
        return table
    raise ValueError("a replay file is .parquet, .csv or .csv.gz")


def decimals_of(prices: Floats) -> int:
    """Fewest decimals at which every price is exact, at most twelve."""
    for digits in range(MAX_DIGITS):
        scaled = prices * 10.0**digits
        if np.all(np.abs(scaled - np.rint(scaled)) <= np.maximum(1e-6, scaled * 1e-12)):
            return digits
    return MAX_DIGITS


def kucoin_base(symbol: str) -> str:
    """Base of a file's symbol in KuCoin's spelling: BTC is XBT, the quote is cut off."""
    quote = next((tail for tail in QUOTES if symbol.endswith(tail) and symbol != tail), "")
    base = symbol[: len(symbol) - len(quote)] if quote else symbol
    return "XBT" if base == "BTC" else base


def replayed_history(path: Path, day: int | None, seed: int, contracts: int | None) -> DailyHistory:
    """Build the market around the candles of a file, starting after epoch day `day`.

    Every symbol becomes a linear USDT perpetual; a day missing in the file has no trades.
    ValueError for an unusable file.
    """
    rows, day = one_venue(read_table(path), day)
    table = by_day(one_listing(rows, day))
    table = table.where(table.day >= day - PAST_DAYS)
    names, starts = np.unique(table.symbol, return_index=True)
    pieces = [
        table.where(np.arange(start, stop))
        for start, stop in zip(starts, [*starts[1:], table.day.size], strict=True)
    ]
    turnovers = [float(np.median(_until(piece, day).value[-30:])) for piece in pieces]
    # Future listings come last: their rank must not be known yet.
    later = [int(piece.day[0]) > day for piece in pieces]
    order = np.lexsort([np.negative(turnovers), np.array(later, float)])[:contracts]
    first_day, end_day = int(table.day.min()), int(table.day.max())
    shape = (order.size, end_day - first_day + 1)
    daily = Bars(np.ones((*shape, 4), np.int64), np.zeros(shape, np.int64), np.zeros(shape))
    listings = []
    for row, index in enumerate(order):
        piece = pieces[index]
        listing = _listing(str(names[index]), piece, day, end_day, turnovers[index], row + 1)
        _fill(daily, row, piece, first_day, listing)
        listings.append(listing)
    first_bar = np.array([int(pieces[index].day[0]) - first_day for index in order])
    last_bar = np.array([int(pieces[index].day[-1]) - first_day for index in order])
    rng = np.random.default_rng([seed, 6])
    log = np.log(daily.ticks[:, :, CLOSE]).T
    returns = np.diff(log, axis=0, prepend=log[:1])
    return DailyHistory(
        listings=tuple(listings),
        first_day=first_day,
        start_ms=(day + 1) * DAY_MS + START_AFTER_MS,
        daily=daily,
        premium=daily_premium(returns, rng),
        open_interest=swinging_interest(daily.lots, day - first_day + 1, rng),
        first_bar=first_bar,
        last_bar=last_bar,
        sway=_sway(listings, returns),
    )


def _until(piece: CandleTable, day: int) -> CandleTable:
    """Rows known on the day, or the first one of a later listing."""
    known = piece.day <= day
    known[0] = True
    return piece.where(known)


def _listing(
    symbol: str, piece: CandleTable, day: int, end_day: int, turnover: float, rank: int
) -> ListedContract:
    base = kucoin_base(symbol)
    price = float(_until(piece, day).ohlc[-1, CLOSE])
    last = int(piece.day[-1])
    expire_ms = (last + 1) * DAY_MS if last < end_day else None
    return ListedContract(
        symbol=f"{base}USDTM",
        base=base,
        quote="USDT",
        settle="USDT",
        kind="linear",
        nature="coin",
        price=price,
        tick_digits=decimals_of(piece.ohlc),
        multiplier=KNOWN[base][0] if base in KNOWN else multiplier_for(price),
        turnover=max(turnover, 1_000.0),
        rank=rank,
        first_open_ms=int(piece.day[0]) * DAY_MS,
        funding_hours=8,
        expire_ms=expire_ms,
        announced_ms=None if expire_ms is None else expire_ms - ANNOUNCED_MS,
    )


def _fill(
    daily: Bars, row: int, piece: CandleTable, first_day: int, listing: ListedContract
) -> None:
    """Write one contract's bars on the tick grid; days without a candle are flat and silent."""
    ticks = np.rint(piece.ohlc * 10.0**listing.tick_digits).astype(np.int64)
    ticks[:, HIGH] = ticks.max(axis=1)
    ticks[:, LOW] = ticks.min(axis=1)
    at = piece.day - first_day
    moved = (piece.volume > 0) | (ticks[:, HIGH] > ticks[:, LOW])
    lots = np.maximum(np.rint(piece.volume / listing.multiplier), 1.0)
    latest = np.searchsorted(at, np.arange(daily.lots.shape[1]), side="right") - 1
    before: Ints = np.where(latest < 0, ticks[0, OPEN], ticks[latest, CLOSE])
    daily.ticks[row] = before[:, None]
    daily.ticks[row, at] = ticks
    daily.lots[row, at] = np.where(moved, lots, 0.0).astype(np.int64)
    daily.turnover[row, at] = np.where(moved, piece.value, 0.0)


def _sway(listings: list[ListedContract], returns: Floats) -> Floats:
    """Share (N,) of each contract's moves that follows the market: correlation with bitcoin."""
    leader = next((row for row, item in enumerate(listings) if item.base == "XBT"), 0)
    centred = returns - returns.mean(axis=0)
    spread = np.maximum(np.sqrt((centred**2).mean(axis=0)), 1e-12)
    together = (centred * centred[:, [leader]]).mean(axis=0) / (spread * spread[leader])
    answer: Floats = np.clip(together, 0.0, 0.95)
    return answer
