"""Breaks of a price history, by long gaps and changes of the unit, and the part after them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final

import numpy as np

from app.foundation.decimal_math import EXACT
from app.market.domain.identity_cache import cached_while_alive
from app.market.domain.models import (
    CandleSeries,
    Floats,
    Interval,
    Ints,
    LotChange,
)
from app.market.domain.panel import FIELDS, MAX_FORWARD_FILL, Bools, Panel, forward_fill

_HALT: Final = {
    Interval.DAY: MAX_FORWARD_FILL,
    Interval.HOUR: 24,
}  # bars; a longer gap is a break
_LEAST_POWER: Final = 1  # exponent of ten: coins are exchanged one to ten, a hundred, a thousand
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_FAR: Final = 5.0  # a smaller ratio is near no power of ten except one
_NEAR: Final = 0.15  # decimal logarithms from a power of ten: room for a day's move
# Largest move within one bar: a hundredfold change of unit and a market that halves beside it.
_WIDEST: Final = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class ContiguousPanel(Panel):
    """Bars after the last break of each symbol; created by `contiguous` only."""


@dataclass(frozen=True, slots=True)
class Redenomination:
    """Change of the price unit between `since` and `until`; no return spans it."""

    since: datetime
    until: datetime
    before: Decimal  # the last price in the old unit
    after: Decimal  # the first price in the new one

    def is_nearer_after(self, price: Decimal) -> bool:
        """True if a price is nearer to the one after the change than before it, in logarithms."""
        square, middle = EXACT.multiply(price, price), EXACT.multiply(self.before, self.after)
        return square > middle if self.after > self.before else square < middle

    def is_past(self, at: datetime, price: Decimal) -> bool:
        """True if a price at that moment is in the new unit; within the change by its value."""
        if self.since <= at < self.until:
            return self.is_nearer_after(price)
        return at >= self.until


def find_crossed_change(
    changes: Iterable[Redenomination],
    first: tuple[datetime, Decimal],
    last: tuple[datetime, Decimal],
) -> Redenomination | None:
    """Returns the first change of unit between two prices with their moments; None without any."""
    return next(
        (one for one in changes if one.is_past(*last) and not one.is_past(*first)),
        None,
    )


def unit_changes(panel: Panel | None, symbol: str) -> tuple[Redenomination, ...]:
    """Returns the redenominations of a symbol in the panel, oldest first."""
    return () if panel is None else _unit_changes(panel).get(symbol, ())


def unit_changes_of_lots(
    panel: Panel | None, symbol: str, changes: Iterable[LotChange], *, is_whole: bool = True
) -> tuple[Redenomination, ...]:
    """Returns redenominations that closes confirm after a multiplier changed by a power of ten.

    A lot keeps its value when the price unit changes. Unmoved closes show only another lot size.
    Where closes begin after the change, only its two units are known: a price from before decides
    its own unit. Without `is_whole` the panel is a part of the history, and such closes confirm
    nothing.
    """
    if panel is None or symbol not in panel.symbols:
        return ()
    closes = panel.close[:, panel.symbols.index(symbol)]
    known = np.flatnonzero(np.isfinite(closes) & (closes > 0.0)).tolist()
    found = []
    for change in changes:
        ratio = float(change.before / change.after)
        if not bool(_is_power(np.array([ratio]))[0]):
            continue
        between = [
            (one, other)
            for one, other in pairwise(known)
            if _end(panel, other) > change.since
            and _begin(panel, other) <= change.until
            and abs(np.log10(closes[other] / closes[one] / ratio)) < _NEAR
        ]
        if between:
            one, other = between[-1]
            since, until = _end(panel, one), _end(panel, other)
            before = Decimal(repr(float(closes[one])))
            found.append(Redenomination(since, until, before, Decimal(repr(float(closes[other])))))
        elif is_whole and known and _begin(panel, known[0]) >= change.until:
            after = Decimal(repr(float(closes[known[0]])))
            before = EXACT.divide(EXACT.multiply(after, change.after), change.before)
            found.append(Redenomination(change.since, change.until, before, after))
    return tuple(found)


def newest_close(panel: Panel | None, symbol: str) -> tuple[datetime, Decimal] | None:
    """Returns the last known close of a symbol, with the end of its bar."""
    if panel is None or symbol not in panel.symbols:
        return None
    closes = panel.close[:, panel.symbols.index(symbol)]
    known = np.flatnonzero(np.isfinite(closes) & (closes > 0.0))
    if not len(known):
        return None
    row = int(known[-1])
    return _end(panel, row), Decimal(repr(float(closes[row])))


@cached_while_alive
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


def _begin(panel: Panel, row: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=int(panel.opened_ms[row]))


def _end(panel: Panel, row: int) -> datetime:
    return _begin(panel, row) + timedelta(milliseconds=panel.interval.ms)


def is_redenomination(before: float, after: float) -> bool:
    """True if two consecutive prices are a power of ten apart."""
    if not (before > 0.0 and after > 0.0):
        return False
    return bool(_is_power(np.array([after / before]))[0])


def history_breaks(panel: Panel) -> Ints:
    """Returns (N,) row of the first bar after the last break of each symbol; 0 without any.

    A break is a gap longer than a halt may be, or an open a power of ten away from the close before
    it: a market that never closes does not move so far between two bars. A bar is a break itself if
    its close is that far from its open, or beyond 50-fold: its open, high and low may be in the old
    unit. It belongs to no segment, and the bar after it is the first one; the result is the number
    of rows where there is none yet.
    """
    halted, renamed = _breaks(panel)
    return np.maximum(_last_row(halted | renamed), _last_row(_is_mixed(panel.open, panel.close), 1))


def breaks_by_row(panel: Panel) -> Ints:
    """Returns (T, N) the `history_breaks` of the panel up to each row."""
    halted, renamed = _breaks(panel)
    rows = np.arange(len(halted))[:, None]
    after_mixed = np.where(_is_mixed(panel.open, panel.close), rows + 1, 0)
    marks = np.maximum(np.where(halted | renamed, rows, 0), after_mixed)
    return np.asarray(np.maximum.accumulate(marks, axis=0), np.int64)


@cached_while_alive  # all portfolio members share one panel
def redenominations(panel: Panel) -> Ints:
    """Returns (N,) row of the first bar in each symbol's present denomination; 0 without a change.

    A halt is no redenomination: prices before and after it have the same unit.
    """
    return _last_row(_breaks(panel)[1])


def _breaks(panel: Panel) -> tuple[Bools, Bools]:
    """Returns (T, N) each: bars after a halt, and bars after a redenomination."""
    known = np.isfinite(panel.close)
    rows = np.arange(len(known))[:, None]
    seen = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    before = np.vstack([np.full((1, known.shape[1]), -1, dtype=seen.dtype), seen[:-1]])
    follows = known & (before >= 0)
    halted = follows & (rows - before - 1 > _HALT[panel.interval])
    last = np.take_along_axis(panel.close, np.maximum(before, 0), axis=0) if len(rows) else before
    with np.errstate(all="ignore"):
        return halted, follows & _is_power(panel.open / last)


def _is_mixed(opened: Floats, closed: Floats) -> Bools:
    """Returns the bars that may open in one price unit and close in another one."""
    with np.errstate(all="ignore"):
        ratio = closed / opened
        return _is_power(ratio) | (ratio > _WIDEST) | (ratio < 1.0 / _WIDEST)


def in_present_unit(series: CandleSeries) -> CandleSeries:
    """Returns the candles after their last change of unit, as `history_breaks` without halts."""
    if len(series) == 0:
        return series
    marks = _is_mixed(series.open, series.close)
    with np.errstate(all="ignore"):
        marks[:-1] |= _is_power(series.open[1:] / series.close[:-1])
    first = int(_last_row(marks[:, None], 1)[0])
    if first == 0:
        return series
    fields = {name: getattr(series, name)[first:] for name in FIELDS}
    return CandleSeries(series.opened_ms[first:], **fields)


def _last_row(marks: Bools, beyond: int = 0) -> Ints:
    """Returns (N,) row of the last mark, or `beyond` rows after it; 0 without any."""
    rows = np.arange(len(marks))[:, None] + beyond
    return np.asarray(np.max(np.where(marks, rows, 0), axis=0, initial=0), np.int64)


def contiguous(panel: Panel) -> ContiguousPanel:
    """Returns the panel without the bars before the last break of each symbol."""
    return panel if isinstance(panel, ContiguousPanel) else _cut(panel)


def log_returns(prices: ContiguousPanel, bars: int | None = None) -> Floats:
    """Returns ln(c_t / c_t-1) of the last `bars` bars or of all, (T, N).

    NaN where either close is missing or not positive.
    """
    close = _last(prices, bars)
    with np.errstate(all="ignore"):
        logs = np.log(np.where(close > 0.0, close, np.nan))
    return np.asarray(np.diff(logs, axis=0), np.float64)


def simple_returns(prices: ContiguousPanel, bars: int | None = None) -> Floats:
    """Returns c_t / c_t-1 - 1 of the last `bars` bars or of all, (T, N).

    NaN where either close is missing.
    """
    close = _last(prices, bars)
    return np.asarray(close[1:] / close[:-1] - 1.0, np.float64)


def newest(series: CandleSeries, interval: Interval, bars: int) -> ContiguousPanel:
    """Returns the last `bars` bars of one symbol up to its newest candle, short gaps filled."""
    end = int(series.opened_ms[-1]) + interval.ms if len(series) else 0
    # Uncached: single symbols would evict the panels of whole universes.
    return forward_fill(_after_breaks(Panel.from_series({"": series}, ("",), interval, end, bars)))[
        0
    ]


def _last(prices: ContiguousPanel, bars: int | None) -> Floats:
    return prices.close if bars is None else prices.close[-(bars + 1) :]


def _is_power(ratio: Floats) -> Bools:
    # Few bars are that far from the previous one, and logarithms of all take most of the time.
    far = (ratio > _FAR) | (ratio < 1.0 / _FAR)
    power = np.log10(ratio[far])
    whole = np.rint(power)
    found = np.zeros(ratio.shape, np.bool_)
    found[far] = (np.abs(whole) >= _LEAST_POWER) & (np.abs(power - whole) < _NEAR)
    return found


@cached_while_alive  # one panel serves a whole run and all reads after it
def _cut(panel: Panel) -> ContiguousPanel:
    return _after_breaks(panel)


def _after_breaks(panel: Panel) -> ContiguousPanel:
    first = history_breaks(panel)
    fields = {name: getattr(panel, name) for name in FIELDS}
    if first.any():
        there = np.arange(len(panel.opened_ms))[:, None] >= first
        fields = {name: np.where(there, values, np.nan) for name, values in fields.items()}
    return ContiguousPanel(panel.interval, panel.symbols, panel.opened_ms, **fields)
