"""Real candles instead of an invented market: the history around a file's daily bars.

Only the daily candles are the file's. Hourly bars, prices within a day, books, premium, funding
and open interest are made around them: they agree with each day's candle and prove nothing more.
"""

import importlib
from pathlib import Path

import numpy as np

from app.sandbox.bars import CLOSE, HIGH, LOW, OPEN, Bars, Floats, Ints
from app.sandbox.history import History
from app.sandbox.replay_table import CandleTable, by_day, one_listing, one_venue, read_csv
from app.sandbox.synthetic import daily_premium, swinging_interest
from app.sandbox.universe import DAY_MS, KNOWN, Listing, multiplier_for

# The exchange starts ten minutes after the close of the day that is replayed from.
START_AFTER_MS = 600_000
PAST_DAYS = 800
MAX_DIGITS = 12
# Exchanges announce a delisting about so long ahead. The file knows the last day from the start;
# told any earlier, it would keep every coin that fails later out of the portfolio in advance.
ANNOUNCED_MS = 3 * DAY_MS
QUOTES = ("USDT", "USDC", "BUSD", "USD")


def read_table(path: Path) -> CandleTable:
    """The candles of a parquet, CSV or gzipped CSV file; ValueError for anything else."""
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return read_csv(path)
    if name.endswith((".parquet", ".pq")):
        try:
            reader = importlib.import_module("app.sandbox.replay_extra")
        except ImportError as error:
            raise ValueError(
                "reading parquet needs pyarrow: install the 'replay' extra, or give a CSV"
            ) from error
        table: CandleTable = reader.read_parquet(path)
        return table
    raise ValueError("a replay file is .parquet, .csv or .csv.gz")


def decimals_of(prices: Floats) -> int:
    """The fewest decimals at which every price is exact, at most twelve."""
    for digits in range(MAX_DIGITS):
        scaled = prices * 10.0**digits
        if np.all(np.abs(scaled - np.rint(scaled)) <= np.maximum(1e-6, scaled * 1e-12)):
            return digits
    return MAX_DIGITS


def kucoin_base(symbol: str) -> str:
    """The base of a file's symbol as KuCoin spells it: BTC is XBT, the quote is cut off."""
    quote = next((tail for tail in QUOTES if symbol.endswith(tail) and symbol != tail), "")
    base = symbol[: len(symbol) - len(quote)] if quote else symbol
    return "XBT" if base == "BTC" else base


def replayed_history(path: Path, day: int | None, seed: int, contracts: int | None) -> History:
    """Build the market around the candles of a file, starting after epoch day `day`.

    Every symbol becomes a linear USDT perpetual; days the file lacks are days without trades.
    ValueError when the file cannot be used.
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
    # Listings of the future come last: their rank may not be known yet.
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
    return History(
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
    """The rows known on the day, or the first one of a later listing."""
    known = piece.day <= day
    known[0] = True
    return piece.where(known)


def _listing(
    symbol: str, piece: CandleTable, day: int, end_day: int, turnover: float, rank: int
) -> Listing:
    base = kucoin_base(symbol)
    price = float(_until(piece, day).ohlc[-1, CLOSE])
    last = int(piece.day[-1])
    expire_ms = (last + 1) * DAY_MS if last < end_day else None
    return Listing(
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


def _fill(daily: Bars, row: int, piece: CandleTable, first_day: int, listing: Listing) -> None:
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


def _sway(listings: list[Listing], returns: Floats) -> Floats:
    """How much of each contract's moves (N,) is the market's: correlation with bitcoin."""
    leader = next((row for row, item in enumerate(listings) if item.base == "XBT"), 0)
    centred = returns - returns.mean(axis=0)
    spread = np.maximum(np.sqrt((centred**2).mean(axis=0)), 1e-12)
    together = (centred * centred[:, [leader]]).mean(axis=0) / (spread * spread[leader])
    answer: Floats = np.clip(together, 0.0, 0.95)
    return answer
