"""Kernels of the extra `research`: hourly indicators and ranks at every bar, compiled with numba.

`app.scoring.domain.price_factors` computes the same at the newest bar alone, in closed form. A
symbol's state is all that its next bar needs, so that a history may come in pieces.
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
    """`source` as machine code: one thread, without the interpreter's lock, strict IEEE arithmetic.

    The machine code is compiled at the first call and cached where numba may write.
    """

    source: Callable[P, R]
    _compiled: Any = field(default=None, init=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of `source`; division by zero is IEEE's, not an error.

        Raises ModuleNotFoundError without the extra `research`.
        """
        if self._compiled is None:
            # Python's own division would check each divisor, and no loop over columns be vectors.
            compiled = import_module("numba").njit(nogil=True, error_model="numpy")(self.source)
            with suppress(RuntimeError):  # no folder can be written: compiled anew in each process
                compiled.enable_caching()
            self._compiled = compiled
        return cast("R", self._compiled(*args, **kwargs))


@lru_cache(maxsize=2)
def normal_scores(most: int) -> Floats:
    """Phi^-1((r - 0.5) / n) for n = 1..most, one after the other: r = 1, 1.5, 2, ... n of each."""
    sizes = np.arange(1, most + 1)
    many = 2 * sizes - 1
    begin = np.repeat(np.cumsum(many) - many, many)
    rank = 1.0 + (np.arange(many.sum()) - begin) / 2.0
    scores = np.asarray(ndtri((rank - 0.5) / np.repeat(sizes, many)), np.float64)
    scores.flags.writeable = False
    return scores


def ranked_rows(values: Floats, scores: Floats, out: Floats) -> None:  # noqa: C901  # as add_bars
    """(R, N) to (R, N): `rank_to_normal` of each row; ties share, what is not finite is NaN.

    Sorted by the bytes of the numbers, lowest first: no comparison that the processor has to guess.
    """
    rows, symbols = values.shape
    held, bits = np.empty(symbols), np.empty(symbols, np.int64)
    order, later = np.empty(symbols, np.int64), np.empty(symbols, np.int64)
    begin = np.empty(256, np.int64)
    for row in range(rows):
        n = 0
        for j in range(symbols):
            value = values[row, j]
            out[row, j] = np.nan
            order[n] = j
            n += 1 if np.isfinite(value) else 0
            held[j] = value
        raw = held.view(np.int64)
        for j in range(symbols):
            # As integers negative numbers are in reverse, and behind the positive ones.
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
            while last + 1 < n and held[order[last + 1]] == held[order[first]]:
                last += 1
            score = scores[(n - 1) * (n - 1) + first + last]
            for i in range(first, last + 1):
                out[row, order[i]] = score
            first = last + 1


RANKED_ROWS: Final = Kernel(ranked_rows)


# Rows of an answer, NaN where a symbol has too few bars.
RSI: Final = 0  # 14 bars, 0..100; 50 while the price has never moved
HISTOGRAM: Final = 1  # MACD(12, 26, 9), price units; NaN after 100 bars at one close
ATR: Final = 2  # 14 bars, price units
BAND_POSITION: Final = 3  # %b of 20 bars, 2 population sd; NaN after 20 bars at one close
INDICATORS: Final = 4

# A state is made of blocks of symbols: few enough for the processor's first cache, so many that it
# fetches a row ahead. Each of the following is where one number of a block begins. Constant
# distances and loops over columns without a call are what lets the compiler use vectors.
WIDTH: Final = 304
_LINE: Final = 312  # more than WIDTH: addresses 4096 bytes apart hold each other up
_BARS, _CLOSE, _DRIFT, _MOVE, _RANGE, _FAST, _SLOW, _TRIGGER = range(0, 8 * _LINE, _LINE)
_STILL: Final = 8 * _LINE  # bars up to the newest one whose close is that of the newest one
_FADE, _SHARE, _FAST_PACE, _SLOW_PACE, _TRIGGER_PACE = range(9 * _LINE, 14 * _LINE, _LINE)
_SUM, _SQUARES = range(14 * _LINE, 16 * _LINE, _LINE)
_ROWS: Final = 16 * _LINE  # one number: rows taken so far
_CLOSES: Final = 17 * _LINE
_WINDOW: Final = 20
_DEPTH: Final = _CLOSES + _WINDOW * _LINE
_WARM: Final = 34  # bars after which no mean is still being begun
_FADING: Final = 13.0 / 14.0  # what is left of Wilder's sum of 14 after a bar


def _paces() -> Floats:
    """(5, 36) by bar number: decay of strength and range, their share, weights of three means.

    A mean is begun with 1, 1/2, 1/3, ...: the plain mean of its first n. Strength and range are
    sums, fourteen times Wilder's mean: one operation fewer in each row.
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


_PACES: Final = _paces()


def initial_state(symbols: int) -> Floats:
    """The state of symbols without a bar."""
    state = np.zeros((-(-symbols // WIDTH), _DEPTH))
    state[:, _CLOSES:] = np.nan
    return state


def add_bars(  # noqa: C901, PLR0912, PLR0915  # a call for each row costs more than the row
    state: Floats, high: Floats, low: Floats, close: Floats, volume: Floats, out: Floats
) -> None:
    """Takes (T, N) bars into `state`; a row without one of its four figures is no bar.

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
                own[_FADE + j], own[_SHARE + j] = _PACES[0, bar], _PACES[1, bar]
                own[_FAST_PACE + j], own[_SLOW_PACE + j] = _PACES[2, bar], _PACES[3, bar]
                own[_TRIGGER_PACE + j] = _PACES[4, bar]
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
                # A symbol without a bar keeps its twenty: they move on by one, and the newest is
                # written below.
                for j in range(n):
                    if own[_SLOW_PACE + j] == 0.0 and own[_BARS + j] > 0.0:
                        moving = own[_CLOSES + turn * _LINE + j]
                        for i in range(1, _WINDOW):
                            place = _CLOSES + (turn + i) % _WINDOW * _LINE + j
                            moving, own[place] = own[place], moving
            line = own[_CLOSES + turn * _LINE : _CLOSES + turn * _LINE + n]
            for j in range(n):
                line[j] = own[_CLOSE + j]
            # Sums about one of the window's own numbers lose no digits: it is near their mean.
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
    """MACD histogram in ATR14, comparable between coins: (4, ...) to (...), NaN for no range."""
    reach = indicators[ATR]
    return np.asarray(indicators[HISTOGRAM] / np.where(reach > 0.0, reach, np.nan), np.float64)
