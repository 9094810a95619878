"""Prices that are safe to difference: the bars after the last break of each symbol's history.

After a halt, a new listing under an old name or a redenomination no window may reach back: its
returns, means and highs would compare what cannot be compared. `unbroken` is the only accessor of
such prices; a test of the architecture finds code that reads the prices of a panel without it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final

import numpy as np

from app.foundation.decimal_math import EXACT
from app.market.domain.models import CandleSeries, Floats, Interval, Ints
from app.market.domain.panel import FIELDS, LONGEST_BRIDGE, Bools, Panel, bridged

_HALT: Final = {Interval.DAY: LONGEST_BRIDGE, Interval.HOUR: 24}  # bars; more in a row are a break
_LEAST_POWER: Final = 1  # of ten: coins are exchanged one to ten, a hundred, a thousand
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_NEAR: Final = 0.15  # of a power of ten, in decimal logarithms: a day's move beside it


@dataclass(frozen=True, slots=True, eq=False)
class UnbrokenPanel(Panel):
    """Bars after the last break of each symbol; made by `unbroken` alone."""


@dataclass(frozen=True, slots=True)
class Redenomination:
    """A change of the unit of a price between `since` and `until`: no return reaches across it."""

    since: datetime
    until: datetime
    before: Decimal  # the last price in the old unit
    after: Decimal  # the first price in the new one

    def is_nearer_after(self, price: Decimal) -> bool:
        """Whether the price is nearer to that after the change than before it, in logarithms."""
        square, middle = EXACT.multiply(price, price), EXACT.multiply(self.before, self.after)
        return square > middle if self.after > self.before else square < middle

    def is_past(self, at: datetime, price: Decimal) -> bool:
        """Whether a price of that moment is in the new unit; during the change the price tells."""
        if self.since <= at < self.until:
            return self.is_nearer_after(price)
        return at >= self.until


def crossed(
    changes: Iterable[Redenomination],
    first: tuple[datetime, Decimal],
    last: tuple[datetime, Decimal],
) -> Redenomination | None:
    """The first change of unit between two prices, each with its moment; None without any."""
    return next(
        (one for one in changes if one.is_past(*last) and not one.is_past(*first)),
        None,
    )


def unit_changes(panel: Panel | None, symbol: str) -> tuple[Redenomination, ...]:
    """The redenominations of a symbol that the panel shows, oldest first."""
    return () if panel is None else _unit_changes(panel).get(symbol, ())


def newest_close(panel: Panel | None, symbol: str) -> tuple[datetime, Decimal] | None:
    """The last known close of a symbol, with the end of its bar."""
    if panel is None or symbol not in panel.symbols:
        return None
    closes = panel.close[:, panel.symbols.index(symbol)]
    known = np.flatnonzero(np.isfinite(closes) & (closes > 0.0))
    if not len(known):
        return None
    row = int(known[-1])
    return _end(panel, row), Decimal(repr(float(closes[row])))


@lru_cache(maxsize=4)  # by identity, as `_cut`
def _unit_changes(panel: Panel) -> Mapping[str, tuple[Redenomination, ...]]:
    found: dict[str, tuple[Redenomination, ...]] = {}
    for row, column in np.argwhere(_breaks(panel)[1]).tolist():
        last = int(np.flatnonzero(np.isfinite(panel.close[:row, column]))[-1])
        one = Redenomination(
            since=_end(panel, last),
            until=_end(panel, row),
            before=Decimal(repr(float(panel.close[last, column]))),
            after=Decimal(repr(float(panel.open[row, column]))),
        )
        name = panel.symbols[column]
        found[name] = (*found.get(name, ()), one)
    return found


def _end(panel: Panel, row: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(panel.opened_ms[row]) + panel.interval.ms)


def is_redenomination(before: float, after: float) -> bool:
    """Whether a price and the next one stand a power of ten apart: a coin became ten, or so."""
    if not (before > 0.0 and after > 0.0):
        return False
    return bool(_is_power(np.array([after / before]))[0])


def breaks(panel: Panel) -> Ints:
    """(N,) row of the first bar after the last break of each symbol; 0 without any.

    A break is a gap longer than a halt may be, or an open that stands a power of ten away from the
    close before it: no market that never closes moves so between two bars.
    """
    halted, renamed = _breaks(panel)
    return _last_row(halted | renamed)


def redenominations(panel: Panel) -> Ints:
    """(N,) row of the first bar in the present denomination of each symbol; 0 without a change.

    A halt is none: the price after it is worth as much as the price before it.
    """
    return _last_row(_breaks(panel)[1])


def _breaks(panel: Panel) -> tuple[Bools, Bools]:
    """(T, N) each: bars after a halt, and bars after a redenomination."""
    known = np.isfinite(panel.close)
    rows = np.arange(len(known))[:, None]
    seen = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    before = np.vstack([np.full((1, known.shape[1]), -1, dtype=seen.dtype), seen[:-1]])
    follows = known & (before >= 0)
    halted = follows & (rows - before - 1 > _HALT[panel.interval])
    last = np.take_along_axis(panel.close, np.maximum(before, 0), axis=0) if len(rows) else before
    with np.errstate(all="ignore"):
        return halted, follows & _is_power(panel.open / last)


def _last_row(marks: Bools) -> Ints:
    rows = np.arange(len(marks))[:, None]
    return np.asarray(np.max(np.where(marks, rows, 0), axis=0, initial=0), np.int64)


def unbroken(panel: Panel) -> UnbrokenPanel:
    """The same without the bars before the last break of each symbol."""
    return panel if isinstance(panel, UnbrokenPanel) else _cut(panel)


def log_returns(prices: UnbrokenPanel, bars: int | None = None) -> Floats:
    """ln(c_t / c_t-1) of the last `bars` bars or of all, (T, N).

    NaN where either close is missing or not positive.
    """
    close = _last(prices, bars)
    with np.errstate(all="ignore"):
        logs = np.log(np.where(close > 0.0, close, np.nan))
    return np.asarray(np.diff(logs, axis=0), np.float64)


def simple_returns(prices: UnbrokenPanel, bars: int | None = None) -> Floats:
    """c_t / c_t-1 - 1 of the last `bars` bars or of all, (T, N); NaN where either is missing."""
    close = _last(prices, bars)
    return np.asarray(close[1:] / close[:-1] - 1.0, np.float64)


def newest(series: CandleSeries, interval: Interval, bars: int) -> UnbrokenPanel:
    """The last `bars` of one symbol up to its newest candle, short gaps bridged."""
    end = int(series.opened_ms[-1]) + interval.ms if len(series) else 0
    return bridged(unbroken(Panel.of({"": series}, ("",), interval, end, bars)))[0]


def _last(prices: UnbrokenPanel, bars: int | None) -> Floats:
    return prices.close if bars is None else prices.close[-(bars + 1) :]


def _is_power(ratio: Floats) -> Bools:
    power = np.log10(ratio)
    whole = np.rint(power)
    return np.asarray((np.abs(whole) >= _LEAST_POWER) & (np.abs(power - whole) < _NEAR))


@lru_cache(maxsize=4)  # by identity: the same panel serves a whole run, and every read after it
def _cut(panel: Panel) -> UnbrokenPanel:
    first = breaks(panel)
    fields = {name: getattr(panel, name) for name in FIELDS}
    if first.any():
        there = np.arange(len(panel.opened_ms))[:, None] >= first
        fields = {name: np.where(there, values, np.nan) for name, values in fields.items()}
    return UnbrokenPanel(panel.interval, panel.symbols, panel.opened_ms, **fields)
