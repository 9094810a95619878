"""From kline rows to one clean candle series: sorted, deduplicated, in base coins."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Final, TypeVar, cast

import numpy as np

from app.adapters.kucoin.fields import (
    DIGITS,
    YEAR_2015_S,
    YEAR_2100_S,
    FieldError,
    Reader,
    UnreadableError,
    instant_ms,
    magnitude,
    not_negative,
    positive,
)
from app.adapters.kucoin.parse import items
from app.market.domain.models import CandleSeries, Contract, Floats, Ints, Rejection

T = TypeVar("T")
_FIRST_MS: Final = YEAR_2015_S * 1000
_END_MS: Final = YEAR_2100_S * 1000
_LEAST: Final = 10.0**-DIGITS
_TOO_MUCH: Final = 10.0 ** (DIGITS + 1)
_OPEN, _HIGH, _LOW, _CLOSE, _LOTS, _TURNOVER = range(6)


@dataclass(frozen=True, slots=True)
class Rows:
    """Candles as they were sent: `opened_ms` (T,), `values` (6, T).

    The values are open, high, low, close, volume in lots, and turnover: NaN where nothing is said.
    """

    opened_ms: Ints
    values: Floats

    def __len__(self) -> int:
        return len(self.opened_ms)


def joined(pages: Sequence[Rows]) -> Rows:
    """The rows of all pages in their order; none if there is no page."""
    nothing = _table([])
    return Rows(
        np.concatenate([page.opened_ms for page in (nothing, *pages)]),
        np.concatenate([page.values for page in (nothing, *pages)], axis=1),
    )


def rows(data: object) -> tuple[Rows, list[Rejection]]:
    """The rows that can be candles, in the order of the answer.

    Columns are time, open, high, low, close, lots and, since 2025, turnover. A row with a value
    that is no number, a price that is not positive, or a high and low that do not enclose open
    and close is rejected: a hole is better than a lie.
    """
    sent = items(data)
    whole = _at_once(sent)
    if whole is not None:
        return whole, []
    kept: list[_Row] = []
    rejections: list[Rejection] = []
    for position, item in enumerate(sent):
        try:
            kept.append(_row(item))
        except FieldError as error:
            rejections.append(Rejection(f"#{position}", error.field, error.reason))
    return _table(kept), rejections


def _at_once(sent: Sequence[object]) -> Rows | None:
    """All rows in one go, an order of magnitude faster than one by one.

    None unless every row is beyond doubt, plain numbers in the usual spelling: `_row` alone
    decides, and says why, wherever there is anything to decide.
    """
    if set(map(type, sent)) != {list}:
        return None
    try:
        columns = list(zip(*cast("Sequence[list[object]]", sent), strict=True))
        numbers = columns[1:7]
        kinds = set(map(type, chain.from_iterable(numbers)))
        if set(map(type, columns[0])) != {int} or not kinds <= {int, float} or len(numbers) < 5:
            return None
        opened = np.array(columns[0], dtype=np.int64)
        values = np.full((6, len(opened)), np.nan)
        values[: len(numbers)] = numbers
    except (ValueError, OverflowError, IndexError):  # ragged, empty, or beyond what fits
        return None
    said = values[: len(numbers)]
    sizes = np.abs(said)
    sound = (
        np.all((opened >= _FIRST_MS) & (opened < _END_MS))
        and np.all((sizes == 0) | ((sizes >= _LEAST) & (sizes < _TOO_MUCH)))
        and np.all(values[_LOW] > 0)
        and np.all(values[_LOW] <= np.minimum(values[_OPEN], values[_CLOSE]))
        and np.all(values[_HIGH] >= np.maximum(values[_OPEN], values[_CLOSE]))
        and np.all(values[_LOTS] >= 0)
    )
    if not sound:
        return None
    values[_TURNOVER] = np.abs(values[_TURNOVER])  # its sign is a quirk
    return Rows(opened, values)


_Row = tuple[int, tuple[float, float, float, float, float, float]]


def _table(found: Sequence[_Row]) -> Rows:
    opened = np.array([moment for moment, _ in found], dtype=np.int64)
    values = np.array([cells for _, cells in found], dtype=np.float64).reshape(len(found), 6)
    return Rows(opened, values.T)


def _row(item: object) -> _Row:
    if not isinstance(item, list) or len(item) < 6:
        raise FieldError("row", "fewer than six columns")
    opened = _cell(item, 0, "time", instant_ms)
    first, high, low, last = (
        float(_cell(item, column, name, positive))
        for column, name in enumerate(("open", "high", "low", "close"), 1)
    )
    if not low <= min(first, last) <= max(first, last) <= high:
        raise FieldError("high", "high and low do not enclose open and close")
    lots = float(_cell(item, 5, "volume", not_negative))
    silent = len(item) < 7 or item[6] is None
    turnover = np.nan if silent else float(_cell(item, 6, "turnover", magnitude))
    return opened, (first, high, low, last, lots, turnover)


def _cell(item: Sequence[object], column: int, name: str, read: Reader[T]) -> T:
    value = item[column]
    try:
        return read(Decimal(repr(value)) if isinstance(value, float) else value)
    except UnreadableError as error:
        raise FieldError(name, str(error)) from None


def series(
    found: Rows, contract: Contract, step_ms: int, start_ms: int, end_ms: int
) -> CandleSeries:
    """Candles opened in [start_ms, end_ms), oldest first, one per opening time; arrays (T,).

    A repeated opening time keeps the later row (it is the newer knowledge of that candle); rows
    off the grid of `step_ms` or outside the range are dropped. Volume becomes base coins for
    linear and USD for inverse contracts. Turnover in quote currency is what the exchange says;
    where it says nothing (six columns) or the contract is inverse (it says base coins) it is
    volume times close for linear contracts and the volume itself for inverse ones.
    """
    moments = found.opened_ms
    wanted = (moments >= start_ms) & (moments < end_ms) & (moments % step_ms == 0)
    # The latest first: of equal moments the first is taken.
    backwards = np.flatnonzero(wanted)[::-1]
    opened, chosen = np.unique(moments[backwards], return_index=True)
    values = found.values[:, backwards[chosen]]
    volume = values[_LOTS] * float(contract.multiplier)
    close = values[_CLOSE]
    if contract.is_inverse:
        turnover = volume.copy()
    else:
        given = values[_TURNOVER]
        turnover = np.where(np.isnan(given), volume * close, given)
    return CandleSeries(
        opened_ms=opened,
        open=values[_OPEN].copy(),
        high=values[_HIGH].copy(),
        low=values[_LOW].copy(),
        close=close.copy(),
        volume=volume,
        turnover=turnover,
    )
