"""Kernels of the extra `research`: hourly indicators and ranks at every bar, compiled with numba.

`app.scoring.domain.price_factors` computes the same at the newest bar alone, in closed form. The
state of a symbol is sufficient for its next bar, so that a history can be processed in blocks.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

import numpy as np
from scipy.special import ndtri

from app.market.domain.models import Floats
from app.scoring.domain.price_factors import STILL_BARS

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Kernel(Generic[P, R]):
    """`source` compiled to machine code: one thread, without the GIL, strict IEEE arithmetic.

    It is compiled at the first call and cached on disk if numba can write there.
    """

    source: Callable[P, R]
    _compiled: Any = field(default=None, init=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls `source`; division by zero follows IEEE and is no error.

        Raises ModuleNotFoundError without the extra `research`.
        """
        if self._compiled is None:
            # Python's division checks each divisor, which prevents vectorised loops over columns.
            compiled = import_module("numba").njit(nogil=True, error_model="numpy")(self.source)
            with suppress(RuntimeError):  # without a writable folder each process compiles again
                compiled.enable_caching()
            self._compiled = compiled
        return cast("R", self._compiled(*args, **kwargs))


@lru_cache(maxsize=2)
def normal_scores(most: int) -> Floats:
    """Phi^-1((r - 0.5) / n) for n = 1..most, concatenated, with r = 1, 1.5, 2, ... n each."""
    sizes = np.arange(1, most + 1)
    many = 2 * sizes - 1
    begin = np.repeat(np.cumsum(many) - many, many)
    rank = 1.0 + (np.arange(many.sum()) - begin) / 2.0
    scores = np.asarray(ndtri((rank - 0.5) / np.repeat(sizes, many)), np.float64)
    scores.flags.writeable = False
    return scores


def rank_rows(values: Floats, scores: Floats, out: Floats) -> None:  # noqa: C901  # as add_bars
    """Applies `rank_to_normal` to each row, (R, N) to (R, N); ties share a rank, others are NaN.

    A radix sort by the bytes of the numbers avoids mispredicted comparisons.
    """
    rows, symbols = values.shape
    values_copy, bits = np.empty(symbols), np.empty(symbols, np.int64)
    order, later = np.empty(symbols, np.int64), np.empty(symbols, np.int64)
    begin = np.empty(256, np.int64)
    for row in range(rows):
        n = 0
        for j in range(symbols):
            value = values[row, j]
            out[row, j] = np.nan
            order[n] = j
            n += 1 if np.isfinite(value) else 0
            values_copy[j] = value
        raw = values_copy.view(np.int64)
        for j in range(symbols):
            # The mask corrects the order of negative floats, reversed and last as integers.
            bits[j] = raw[j] ^ ((raw[j] >> 63) | (-1 << 63))
        for shift in range(0, 64, 8):
            begin[:] = 0
            for i in range(n):
                begin[(bits[order[i]] >> shift) & 255] += 1
            if n == 0 or begin[(bits[order[0]] >> shift) & 255] == n:
                continue
            total = 0
            for digit in range(256):
                count = begin[digit]
                begin[digit] = total
                total += count
            for i in range(n):
                digit = (bits[order[i]] >> shift) & 255
                later[begin[digit]] = order[i]
                begin[digit] += 1
            order, later = later, order
        first = 0
        while first < n:
            last = first
            while last + 1 < n and values_copy[order[last + 1]] == values_copy[order[first]]:
                last += 1
            score = scores[(n - 1) * (n - 1) + first + last]
            for i in range(first, last + 1):
                out[row, order[i]] = score
            first = last + 1


RANK_ROWS: Final = Kernel(rank_rows)


# Rows of the result, NaN where a symbol has too few bars.
RSI: Final = 0  # 14 bars, 0..100; 50 while the price has never moved
HISTOGRAM: Final = 1  # MACD(12, 26, 9), price units; NaN after 100 bars at one close
ATR: Final = 2  # 14 bars, price units
BAND_POSITION: Final = 3  # %b of 20 bars, 2 population sd; NaN after 20 bars at one close
INDICATORS: Final = 4

# A state has blocks of symbols: small enough for the first-level cache, large enough to prefetch a
# row. The following constants are offsets of the values in a block. Constant offsets and loops
# over columns without calls let the compiler vectorise.
WIDTH: Final = 304
_LINE: Final = 312  # more than WIDTH, because addresses 4096 bytes apart collide
_BARS, _CLOSE, _DRIFT, _MOVE, _RANGE, _FAST, _SLOW, _TRIGGER = range(0, 8 * _LINE, _LINE)
_STILL: Final = 8 * _LINE  # number of newest bars at the last close
_FADE, _SHARE, _FAST_PACE, _SLOW_PACE, _TRIGGER_PACE = range(9 * _LINE, 14 * _LINE, _LINE)
_SUM, _SQUARES = range(14 * _LINE, 16 * _LINE, _LINE)
_ROWS: Final = 16 * _LINE  # one number: processed rows
_CLOSES: Final = 17 * _LINE
_WINDOW: Final = 20
_DEPTH: Final = _CLOSES + _WINDOW * _LINE
_WARM: Final = 34  # bars after which every mean is seeded
_FADING: Final = 13.0 / 14.0  # decay of Wilder's sum of 14 per bar


def _mean_weights() -> Floats:
    """(5, 36) by bar number: decay of strength and range, their share, weights of three means.

    A mean is seeded with weights 1, 1/2, 1/3, ..., the plain mean of its first n bars. Strength
    and range are sums, 14 times Wilder's mean, which saves one operation per row.
    """
    bar = np.arange(_WARM + 2.0)
    weights = (
        np.where(bar > 15, _FADING, 1.0),
        np.where(bar > 1, 1.0, 0.0),
        np.where(bar > 26, 2.0 / 13.0, np.where(bar > 14, 1.0 / np.clip(bar - 14, 0.1, 12), 0.0)),
        np.where(bar > 26, 2.0 / 27.0, np.where(bar > 0, 1.0 / np.maximum(bar, 0.1), 0.0)),
        np.where(bar > _WARM, 0.2, np.where(bar > 25, 1.0 / np.maximum(bar - 25, 0.1), 0.0)),
    )
    return np.array(weights)


_MEAN_WEIGHTS: Final = _mean_weights()


def initial_state(symbols: int) -> Floats:
    """Returns the state of symbols without a bar."""
    state = np.zeros((-(-symbols // WIDTH), _DEPTH))
    state[:, _CLOSES:] = np.nan
    return state


def add_bars(  # noqa: C901, PLR0912, PLR0915  # a call for each row costs more than the row
    state: Floats, high: Floats, low: Floats, close: Floats, volume: Floats, out: Floats
) -> None:
    """Adds (T, N) bars to `state`; a row that lacks one of the four values is no bar.

    `out` is (4, T, N), NaN in rows without a bar.
    """
    rows, symbols = close.shape
    for block in range(len(state)):
        own = state[block]
        first = block * WIDTH
        n = min(WIDTH, symbols - first)
        seen = int(own[_ROWS])
        for row in range(rows):
            h, lo = high[row, first : first + n], low[row, first : first + n]
            c, v = close[row, first : first + n], volume[row, first : first + n]
            gaps = 0
            for j in range(n):
                whole = (h[j] + lo[j]) + (c[j] + v[j])
                bar = min(int(own[_BARS + j]), _WARM) + 1 if whole - whole == 0.0 else 0
                own[_FADE + j], own[_SHARE + j] = _MEAN_WEIGHTS[0, bar], _MEAN_WEIGHTS[1, bar]
                own[_FAST_PACE + j], own[_SLOW_PACE + j] = (
                    _MEAN_WEIGHTS[2, bar],
                    _MEAN_WEIGHTS[3, bar],
                )
                own[_TRIGGER_PACE + j] = _MEAN_WEIGHTS[4, bar]
                own[_BARS + j] += 1.0 if bar > 0 else 0.0
                gaps += 1 if bar == 0 else 0
            for j in range(n):
                before, slow_pace = own[_CLOSE + j], own[_SLOW_PACE + j]
                price = c[j] if slow_pace > 0.0 else before
                top = h[j] if slow_pace > 0.0 else before
                bottom = lo[j] if slow_pace > 0.0 else before
                top = top if top > before else before  # noqa: FURB136  # slower with NaN's rules
                bottom = bottom if bottom < before else before  # noqa: FURB136  # slower with NaN's rules
                change = price - before
                fade, share = own[_FADE + j], own[_SHARE + j]
                own[_DRIFT + j] = own[_DRIFT + j] * fade + share * change
                own[_MOVE + j] = own[_MOVE + j] * fade + share * abs(change)
                own[_RANGE + j] = own[_RANGE + j] * fade + share * (top - bottom)
                fast = own[_FAST + j]
                own[_FAST + j] = fast = fast + own[_FAST_PACE + j] * (price - fast)
                slow = own[_SLOW + j]
                own[_SLOW + j] = slow = slow + slow_pace * (price - slow)
                level = own[_TRIGGER + j]
                own[_TRIGGER + j] = level + own[_TRIGGER_PACE + j] * (fast - slow - level)
                still = own[_STILL + j] if change == 0.0 else 0.0
                own[_STILL + j] = still + (1.0 if slow_pace > 0.0 else 0.0)
                own[_CLOSE + j] = price
            turn = (seen + row) % _WINDOW
            if gaps:
                # A symbol without a bar keeps its 20 closes: they shift by one place, and the
                # newest is written below.
                for j in range(n):
                    if own[_SLOW_PACE + j] == 0.0 and own[_BARS + j] > 0.0:
                        moving = own[_CLOSES + turn * _LINE + j]
                        for i in range(1, _WINDOW):
                            place = _CLOSES + (turn + i) % _WINDOW * _LINE + j
                            moving, own[place] = own[place], moving
            line = own[_CLOSES + turn * _LINE : _CLOSES + turn * _LINE + n]
            for j in range(n):
                line[j] = own[_CLOSE + j]
            # Sums about a value of the window lose no digits, because it is near the mean.
            for j in range(n):
                own[_SUM + j] = own[_SQUARES + j] = 0.0
            for i in range(0, _WINDOW, 5):
                at = _CLOSES + i * _LINE
                a, b = own[at : at + n], own[at + _LINE : at + _LINE + n]
                d = own[at + 2 * _LINE : at + 2 * _LINE + n]
                e = own[at + 3 * _LINE : at + 3 * _LINE + n]
                f = own[at + 4 * _LINE : at + 4 * _LINE + n]
                for j in range(n):
                    last = own[_CLOSE + j]
                    p, q, s, t, u = a[j] - last, b[j] - last, d[j] - last, e[j] - last, f[j] - last
                    own[_SUM + j] += p + q + s + t + u
                    own[_SQUARES + j] += p * p + q * q + s * s + t * t + u * u
            a, b = out[BAND_POSITION, row, first : first + n], out[RSI, row, first : first + n]
            d, e = out[ATR, row, first : first + n], out[HISTOGRAM, row, first : first + n]
            for j in range(n):
                bars = own[_BARS + j] if own[_SLOW_PACE + j] > 0.0 else 0.0
                mean = own[_SUM + j] * (1.0 / _WINDOW)
                sd = np.sqrt(max(own[_SQUARES + j] * (1.0 / _WINDOW) - mean * mean, 0.0))
                has_band = sd > 0.0 and own[_STILL + j] < _WINDOW and bars >= _WINDOW
                a[j] = (2.0 * sd - mean) / (4.0 * sd) if has_band else np.nan
                moved = own[_MOVE + j]
                strength = 50.0 + 50.0 * (own[_DRIFT + j] / moved) if moved > 0.0 else 50.0
                b[j] = strength if bars > 14.0 else np.nan
                d[j] = own[_RANGE + j] * (1.0 / 14.0) if bars > 14.0 else np.nan
                has_macd = bars >= _WARM and own[_STILL + j] < STILL_BARS
                histogram = own[_FAST + j] - own[_SLOW + j] - own[_TRIGGER + j]
                e[j] = histogram if has_macd else np.nan
        own[_ROWS] = seen + rows


ADD_BARS: Final = Kernel(add_bars)


def macd_in_ranges(indicators: Floats) -> Floats:
    """MACD histogram in units of ATR14, (4, ...) to (...); NaN if the range is 0."""
    reach = indicators[ATR]
    return np.asarray(indicators[HISTOGRAM] / np.where(reach > 0.0, reach, np.nan), np.float64)
