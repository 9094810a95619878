"""Nine indicators of every symbol in one pass over its bars: a whole history, or one bar more.

What `app.domain.indicators` says column by column, for hundreds of symbols at the speed of memory.
The state of a symbol is all that its next bar needs, so that a closed bar costs the same after a
week and after a year, and a history is nothing but its bars one after the other: live, batch and
every bar of a backtest are this one function.
"""

from typing import Final

import numpy as np

from app.domain.kernels.compilation import Kernel
from app.domain.market import Floats

# Rows of an answer, NaN where a symbol has too few bars.
RSI: Final = 0  # 14 bars, 0..100; 50 while it has never moved
MACD: Final = 1  # 12 and 26 bars, price units
SIGNAL: Final = 2  # 9 bars
HISTOGRAM: Final = 3
ATR: Final = 4  # 14 bars, price units
BAND_POSITION: Final = 5  # %b of 20 bars, 2 population sd; NaN where the bands coincide
MEAN: Final = 6  # of 20 closes
FLOW: Final = 7  # on-balance volume since the first bar
VOLATILITY: Final = 8  # sample sd of the log returns of the last 24 rows, at least 18 of them
INDICATORS: Final = 9

# A state is made of blocks of 64 symbols, small enough for the processor's first cache; each of
# the following is where 64 numbers of a block begin. Constant distances and loops over columns
# without a call are what lets the compiler use vectors.
WIDTH: Final = 64
_LINE: Final = 72  # more than 64: addresses 4096 bytes apart hold each other up
_BARS: Final = 0
_CLOSE: Final = 1 * _LINE
_GAIN: Final = 2 * _LINE
_LOSS: Final = 3 * _LINE
_RANGE: Final = 4 * _LINE
_FAST: Final = 5 * _LINE
_SLOW: Final = 6 * _LINE
_TRIGGER: Final = 7 * _LINE
_FLOW: Final = 8 * _LINE
_KNOWN_RETURNS: Final = 9 * _LINE
_STRENGTH_PACE: Final = 10 * _LINE
_FAST_PACE: Final = 11 * _LINE
_SLOW_PACE: Final = 12 * _LINE
_TRIGGER_PACE: Final = 13 * _LINE
_SUM: Final = 14 * _LINE
_SQUARES: Final = 15 * _LINE
_RETURN: Final = 16 * _LINE
_ROWS: Final = 17 * _LINE  # one number: rows taken so far
_CLOSES: Final = 18 * _LINE
_WINDOW: Final = 20
_RETURNS: Final = _CLOSES + _WINDOW * _LINE
_SPAN: Final = 24
_DEPTH: Final = _RETURNS + _SPAN * _LINE
_WARM: Final = 34.0  # bars after which no mean is still being begun


def fresh_state(symbols: int) -> Floats:
    """The state of symbols that had no bar yet."""
    state = np.zeros((-(-symbols // WIDTH), _DEPTH))
    state[:, _RETURNS:] = np.nan
    return state


def take(  # noqa: C901, PLR0912, PLR0915  # one function: a call per row costs more than the row
    state: Floats,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    returns: Floats,
    out: Floats,
    is_every: bool,
) -> None:
    """Takes (T, N) bars into `state`; a row where one of its four figures is missing is no bar.

    `returns` are ln(c_t / c_t-1) of neighbouring rows. `out` is (9, T, N), NaN in rows without a
    bar, or for the newest alone (9, 1, N): the values at each symbol's own last bar.
    """
    rows, symbols = close.shape
    for block in range(len(state)):
        own = state[block]
        first = block * WIDTH
        n = min(WIDTH, symbols - first)
        seen = int(own[_ROWS])
        is_warm = is_even = False
        for row in range(rows):
            h, lo = high[row, first : first + n], low[row, first : first + n]
            c, v = close[row, first : first + n], volume[row, first : first + n]
            gaps = 0
            for j in range(n):
                whole = (h[j] + lo[j]) + (c[j] + v[j])
                gaps += 0 if whole - whole == 0.0 else 1
            if not is_warm:
                is_warm = True
                for j in range(n):
                    whole = (h[j] + lo[j]) + (c[j] + v[j])
                    bar = 1.0 if whole - whole == 0.0 else 0.0
                    bars = own[_BARS + j] + 1.0
                    # A mean is begun with weights 1, 1/2, 1/3, ...: the plain mean of its first n.
                    own[_STRENGTH_PACE + j] = bar / min(bars - 1.0, 14.0) if bars > 1.0 else 0.0
                    fast = bar / min(bars - 14.0, 12.0) if bars >= 15.0 else 0.0
                    own[_FAST_PACE + j] = fast if bars <= 26.0 else bar * (2.0 / 13.0)
                    own[_SLOW_PACE + j] = bar / bars if bars <= 26.0 else bar * (2.0 / 27.0)
                    trigger = bar / (bars - 25.0) if bars >= 26.0 else 0.0
                    own[_TRIGGER_PACE + j] = trigger if bars <= _WARM else bar * 0.2
                    own[_BARS + j] += bar
                    is_warm = is_warm and own[_BARS + j] > _WARM
                is_even = False
            elif gaps or not is_even:
                # Whose bars are enough are not counted any more; paces stay while nobody lacks one.
                for j in range(n):
                    whole = (h[j] + lo[j]) + (c[j] + v[j])
                    bar = 1.0 if whole - whole == 0.0 else 0.0
                    own[_STRENGTH_PACE + j] = bar * (1.0 / 14.0)
                    own[_FAST_PACE + j] = bar * (2.0 / 13.0)
                    own[_SLOW_PACE + j] = bar * (2.0 / 27.0)
                    own[_TRIGGER_PACE + j] = bar * 0.2
                is_even = gaps == 0
            for j in range(n):
                before, slow_pace = own[_CLOSE + j], own[_SLOW_PACE + j]
                top, bottom, price, flow = h[j], lo[j], c[j], v[j]
                price = price if slow_pace > 0.0 else before
                flow = flow if slow_pace > 0.0 else 0.0
                top = top if top > before else before  # noqa: FURB136  # slower with NaN's rules
                bottom = bottom if bottom < before else before  # noqa: FURB136  # slower with NaN's rules
                change = price - before
                up = change if change > 0.0 else 0.0  # noqa: FURB136  # slower with NaN's rules
                sign = 1.0 if change > 0.0 else 0.0
                sign = -1.0 if change < 0.0 else sign
                pace, level = own[_STRENGTH_PACE + j], own[_GAIN + j]
                own[_GAIN + j] = level + pace * (up - level)
                level = own[_LOSS + j]
                own[_LOSS + j] = level + pace * (up - change - level)
                level = own[_RANGE + j]
                own[_RANGE + j] = level + pace * (top - bottom - level)
                own[_FLOW + j] += sign * flow
                fast = own[_FAST + j]
                fast += own[_FAST_PACE + j] * (price - fast)
                own[_FAST + j] = fast
                slow = own[_SLOW + j]
                slow += slow_pace * (price - slow)
                own[_SLOW + j] = slow
                level = own[_TRIGGER + j]
                own[_TRIGGER + j] = level + own[_TRIGGER_PACE + j] * (fast - slow - level)
                own[_CLOSE + j] = price
            turn = (seen + row) % _WINDOW
            if gaps:
                # Who has no bar keeps its twenty: they move on by one, the newest is written below.
                for j in range(n):
                    if own[_SLOW_PACE + j] == 0.0 and own[_BARS + j] > 0.0:
                        held = own[_CLOSES + turn * _LINE + j]
                        for i in range(1, _WINDOW):
                            place = _CLOSES + (turn + i) % _WINDOW * _LINE + j
                            held, own[place] = own[place], held
            at = _CLOSES + turn * _LINE
            line = own[at : at + n]
            for j in range(n):
                line[j] = own[_CLOSE + j]
            if (
                is_every or row >= rows - _SPAN
            ):  # what is older would be written over before the end
                at = _RETURNS + (seen + row) % _SPAN * _LINE
                line = own[at : at + n]
                r = returns[row, first : first + n]
                for j in range(n):
                    old, new = line[j], r[j]
                    is_new, is_old = (
                        1.0 if new - new == 0.0 else 0.0,
                        1.0 if old - old == 0.0 else 0.0,
                    )
                    own[_KNOWN_RETURNS + j] += is_new - is_old
                    own[_RETURN + j] = new if is_new > 0.0 else 0.0
                    line[j] = new
            if not is_every and row < rows - 1:
                continue
            told = row if is_every else 0
            # Sums about one of the window's own numbers lose no digits: it is near their mean.
            for j in range(n):
                own[_SUM + j] = 0.0
                own[_SQUARES + j] = 0.0
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
            a, b = out[BAND_POSITION, told, first : first + n], out[MEAN, told, first : first + n]
            d = out[FLOW, told, first : first + n]
            for j in range(n):
                bars = own[_BARS + j] if own[_SLOW_PACE + j] > 0.0 or not is_every else 0.0
                mean = own[_SUM + j] * (1.0 / _WINDOW)
                spread = own[_SQUARES + j] * (1.0 / _WINDOW) - mean * mean
                sd = np.sqrt(max(spread, 0.0))
                position = (2.0 * sd - mean) / (4.0 * sd)
                position = position if sd > 0.0 else np.nan
                a[j] = position if bars >= _WINDOW else np.nan
                b[j] = own[_CLOSE + j] + mean if bars >= _WINDOW else np.nan
                d[j] = own[_FLOW + j] if bars > 0.0 else np.nan
            a, b = out[RSI, told, first : first + n], out[ATR, told, first : first + n]
            for j in range(n):
                bars = own[_BARS + j] if own[_SLOW_PACE + j] > 0.0 or not is_every else 0.0
                moved = own[_GAIN + j] + own[_LOSS + j]
                strength = 100.0 * own[_GAIN + j] / moved
                strength = strength if moved > 0.0 else 50.0
                a[j] = strength if bars > 14.0 else np.nan
                b[j] = own[_RANGE + j] if bars > 14.0 else np.nan
            a, b = out[MACD, told, first : first + n], out[SIGNAL, told, first : first + n]
            d = out[HISTOGRAM, told, first : first + n]
            for j in range(n):
                bars = own[_BARS + j] if own[_SLOW_PACE + j] > 0.0 or not is_every else 0.0
                value, trigger = own[_FAST + j] - own[_SLOW + j], own[_TRIGGER + j]
                a[j] = value if bars >= _WARM else np.nan
                b[j] = trigger if bars >= _WARM else np.nan
                d[j] = value - trigger if bars >= _WARM else np.nan
            for j in range(n):
                own[_SUM + j] = 0.0
                own[_SQUARES + j] = 0.0
            for i in range(0, _SPAN, 4):
                at = _RETURNS + i * _LINE
                a, b = own[at : at + n], own[at + _LINE : at + _LINE + n]
                d = own[at + 2 * _LINE : at + 2 * _LINE + n]
                e = own[at + 3 * _LINE : at + 3 * _LINE + n]
                for j in range(n):
                    last = own[_RETURN + j]
                    p, q, s, t = a[j] - last, b[j] - last, d[j] - last, e[j] - last
                    p, q = p if p - p == 0.0 else 0.0, q if q - q == 0.0 else 0.0
                    s, t = s if s - s == 0.0 else 0.0, t if t - t == 0.0 else 0.0
                    own[_SUM + j] += p + q + s + t
                    own[_SQUARES + j] += p * p + q * q + s * s + t * t
            a = out[VOLATILITY, told, first : first + n]
            for j in range(n):
                bars = own[_BARS + j] if own[_SLOW_PACE + j] > 0.0 or not is_every else 0.0
                known = own[_KNOWN_RETURNS + j]
                spread = own[_SQUARES + j] - own[_SUM + j] * own[_SUM + j] / known
                sd = np.sqrt(max(spread, 0.0) / (known - 1.0))
                a[j] = sd if bars > 0.0 and known >= 18.0 else np.nan
        own[_ROWS] = seen + rows


TAKE: Final = Kernel(take)


def at_last_bar(
    high: Floats, low: Floats, close: Floats, volume: Floats, returns: Floats
) -> Floats:
    """(T, N) bars to (9, N): each symbol's values at its own last bar, NaN without enough."""
    out = np.full((INDICATORS, 1, close.shape[1]), np.nan)
    if len(close):
        # Another layout in memory would be compiled anew, for seconds.
        state, whole = fresh_state(close.shape[1]), np.ascontiguousarray
        TAKE(
            state, whole(high), whole(low), whole(close), whole(volume), whole(returns), out, False
        )
    return out[:, 0]


def histogram_in_ranges(told: Floats) -> Floats:
    """MACD histogram in ATR14, comparable between coins: (9, ...) to (...), NaN for no range."""
    reach = told[ATR]
    return np.asarray(told[HISTOGRAM] / np.where(reach > 0.0, reach, np.nan), np.float64)
