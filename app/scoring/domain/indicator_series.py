"""Series of technical indicators with TA-Lib's values: (T, N) bars in, (T, N) out, no look-ahead.

Each column is a symbol. Rows without a bar (before its listing, or a gap) are skipped and stay
NaN, so a new listing warms up from its own first bar. Deviations from TA-Lib, decided on closes
rather than on rounding residues: RSI of a market that never moved is 50, not 0; %b is missing
after 20 bars at one close, MACD after 100.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.market.domain.models import Floats, Ints


def ema(values: Floats, n: int) -> Floats:
    """Exponential mean, alpha = 2/(n+1), seeded with the mean of the first n bars (index n-1)."""
    own = _OwnBars.of(values)
    return own.unpack(_smooth(own.pack(values), n, n - 1, 2.0 / (n + 1)))


def wilder(values: Floats, n: int) -> Floats:
    """Wilder's mean, alpha = 1/n, seeded with the mean of the first n bars (index n-1)."""
    own = _OwnBars.of(values)
    return own.unpack(_smooth(own.pack(values), n, n - 1, 1.0 / n))


def rsi(close: Floats, n: int = 14) -> Floats:
    """Relative strength 0..100; first at a column's index n; 50 while the close has never moved."""
    own = _OwnBars.of(close)
    change = np.diff(own.pack(close), axis=0)
    gain = _smooth(np.maximum(change, 0.0), n, n - 1, 1.0 / n)
    loss = _smooth(np.maximum(-change, 0.0), n, n - 1, 1.0 / n)
    moved = gain + loss
    strength = 100.0 * gain / np.where(moved > 0.0, moved, np.nan)
    never_moved = np.isfinite(moved) & (np.add.accumulate(np.nan_to_num(np.abs(change))) == 0.0)
    return own.unpack(_shifted_down(np.where(never_moved, 50.0, strength)))


def atr(high: Floats, low: Floats, close: Floats, n: int = 14) -> Floats:
    """Average true range in price units; true range from the second bar, first at index n."""
    own = _OwnBars.of(high, low, close)
    return own.unpack(_atr(own.pack(high), own.pack(low), own.pack(close), n))


def macd(
    close: Floats, fast: int = 12, slow: int = 26, signal: int = 9
) -> tuple[Floats, Floats, Floats]:
    """MACD line, signal and histogram in price units; all three start at slow + signal - 2.

    The fast mean is seeded with the last `fast` of the first `slow` bars, as TA-Lib does.
    """
    own = _OwnBars.of(close)
    line, trigger = _macd(own.pack(close), fast, slow, signal)
    return own.unpack(line), own.unpack(trigger), own.unpack(line - trigger)


def macd_in_ranges(high: Floats, low: Floats, close: Floats) -> Floats:
    """MACD(12, 26, 9) histogram in ATR14: comparable between coins; NaN where the range is 0."""
    own = _OwnBars.of(high, low, close)
    bars = own.pack(close)
    reach = _atr(own.pack(high), own.pack(low), bars, 14)
    line, trigger = _macd(bars, 12, 26, 9)
    return own.unpack((line - trigger) / np.where(reach > 0.0, reach, np.nan))


def bollinger(close: Floats, n: int = 20, width: float = 2.0) -> tuple[Floats, Floats, Floats]:
    """Upper, middle and lower band: mean of n bars and `width` population sd; from index n-1."""
    own = _OwnBars.of(close)
    middle, spread = _mean_and_sd(own.pack(close), n)
    return (
        own.unpack(middle + width * spread),
        own.unpack(middle),
        own.unpack(middle - width * spread),
    )


def bollinger_position(close: Floats, n: int = 20, width: float = 2.0) -> Floats:
    """%b = (close - lower) / (upper - lower), 0..1 inside the bands; NaN after n equal closes."""
    upper, _, lower = bollinger(close, n, width)
    gap = upper - lower
    own = _OwnBars.of(close)
    still = own.unpack(_still(own.pack(close)).astype(np.float64))
    return (close - lower) / np.where((gap > 0.0) & (still < n), gap, np.nan)


STILL_BARS = 100  # equal closes after which MACD is only a rounding residue of old moves


@dataclass(frozen=True, slots=True, eq=False)
class _OwnBars:
    """Bars of each column; packed, they start at row 0 and NaN follows the last."""

    there: NDArray[np.bool_]
    packed: NDArray[np.bool_]

    @classmethod
    def of(cls, *fields: Floats) -> "_OwnBars":
        there = np.logical_and.reduce([np.isfinite(field) for field in fields])
        return cls(there, np.arange(len(there))[:, None] < there.sum(axis=0))

    def pack(self, values: Floats) -> Floats:
        out = np.full(values.shape, np.nan)
        out.T[self.packed.T] = values.T[self.there.T]
        return out

    def unpack(self, values: Floats) -> Floats:
        out = np.full(values.shape, np.nan)
        out.T[self.there.T] = values.T[self.packed.T]
        return out


def _smooth(values: Floats, n: int, start: int, alpha: float) -> Floats:
    """Recursive mean of packed bars, seeded at row `start` with the plain mean of the last n."""
    out = np.full(values.shape, np.nan)
    if len(values) <= start:
        return out
    level = values[start - n + 1 : start + 1].mean(axis=0)
    out[start] = level
    for row in range(start + 1, len(values)):
        level = level + alpha * (values[row] - level)
        out[row] = level
    return out


def _shifted_down(values: Floats) -> Floats:
    """Shifts values one row down, because a change belongs to the later of its two bars."""
    return np.concatenate([np.full((1, values.shape[1]), np.nan), values])


def _atr(high: Floats, low: Floats, close: Floats, n: int) -> Floats:
    before = close[:-1]
    reach = np.maximum(high[1:], before) - np.minimum(low[1:], before)
    return _shifted_down(_smooth(reach, n, n - 1, 1.0 / n))


def _macd(close: Floats, fast: int, slow: int, signal: int) -> tuple[Floats, Floats]:
    """MACD line and signal, both from row slow + signal - 2 on."""
    moves = _still(close) < STILL_BARS
    quick = _smooth(close, fast, slow - 1, 2.0 / (fast + 1))
    line = quick - _smooth(close, slow, slow - 1, 2.0 / (slow + 1))
    first = slow + signal - 2
    trigger = _smooth(line, signal, first, 2.0 / (signal + 1))
    is_known = np.isfinite(trigger) & moves
    return np.where(is_known, line, np.nan), np.where(is_known, trigger, np.nan)


def _still(close: Floats) -> Ints:
    """(T, N) number of consecutive packed bars with an equal close; 0 without a bar."""
    rows = np.arange(len(close))[:, None]
    changed = np.ones(close.shape, np.bool_)
    changed[1:] = close[1:] != close[:-1]
    since = np.maximum.accumulate(np.where(changed, rows, 0), axis=0)
    return np.where(np.isfinite(close), rows - since + 1, 0)


def _mean_and_sd(values: Floats, n: int) -> tuple[Floats, Floats]:
    """Mean and population sd of the last n rows, two passes: running sums lose digits."""
    mean = np.full(values.shape, np.nan)
    spread = np.full(values.shape, np.nan)
    rows = len(values) - n + 1
    if rows > 0:
        window = [values[first : first + rows] for first in range(n)]
        middle = np.add.reduce(window) / n
        mean[n - 1 :] = middle
        spread[n - 1 :] = np.sqrt(np.add.reduce([(bar - middle) ** 2 for bar in window]) / n)
    return mean, spread
