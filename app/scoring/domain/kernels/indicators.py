"""Nine indicators of every symbol in one pass over its bars: a whole history, or one bar more.

What `app.scoring.domain.indicators` says column by column, for hundreds of symbols at once.
The state of a symbol is all that its next bar needs, so that a closed bar costs the same after a
week and after a year, and a history is nothing but its bars one after the other: live, batch and
every bar of a backtest are this one function.
"""

from typing import Final

import numpy as np

from app.market.domain.models import Floats
from app.scoring.domain.kernels.compilation import Kernel

# Rows of an answer, NaN where a symbol has too few bars.
RSI: Final = 0  # 14 bars, 0..100; 50 while it has never moved
MACD: Final = 1  # 12 and 26 bars, price units; NaN after 100 bars at one close
SIGNAL: Final = 2  # 9 bars
HISTOGRAM: Final = 3
ATR: Final = 4  # 14 bars, price units
BAND_POSITION: Final = 5  # %b of 20 bars, 2 population sd; NaN after 20 bars at one close
MEAN: Final = 6  # of 20 closes
FLOW: Final = 7  # on-balance volume since the first bar
VOLATILITY: Final = 8  # sample sd of the log returns of the last 24 rows, at least 18 of them
INDICATORS: Final = 9

# A state is made of blocks of symbols: few enough for the processor's first cache, so many that it
# fetches a row ahead. Each of the following is where one number of a block begins. Constant
# distances and loops over columns without a call are what lets the compiler use vectors.
WIDTH: Final = 304
_LINE: Final = 312  # more than WIDTH: addresses 4096 bytes apart hold each other up
_BARS, _CLOSE, _DRIFT, _MOVE, _RANGE, _FAST, _SLOW, _TRIGGER, _FLOW = range(0, 9 * _LINE, _LINE)
_STILL: Final = 9 * _LINE  # bars up to the newest one whose close is that of the newest one
_FADE, _SHARE, _FAST_PACE, _SLOW_PACE, _TRIGGER_PACE = range(10 * _LINE, 15 * _LINE, _LINE)
_KNOWN_RETURNS, _RETURN, _SUM, _SQUARES = range(15 * _LINE, 19 * _LINE, _LINE)
_ROWS: Final = 19 * _LINE  # one number: rows taken so far
_CLOSES: Final = 20 * _LINE
_WINDOW: Final = 20
_RETURNS: Final = _CLOSES + _WINDOW * _LINE
_SPAN: Final = 24
_KEPT: Final = _RETURNS + _SPAN * _LINE  # a copy of _CLOSE to _STILL
_LEVELS: Final = _STILL + _LINE - _CLOSE
_DEPTH: Final = _KEPT + _LEVELS
STILL_BARS: Final = 100  # at one close: MACD is what rounding leaves of moves long ago
_WARM: Final = 34  # bars after which no mean is still being begun
_FADING: Final = 13.0 / 14.0  # what is left of Wilder's sum of 14 after a bar
_STRIDE: Final = 32  # rows that are taken as if nobody lacked a bar, and then looked at


def _paces() -> Floats:
    """(5, 36) of bar number 0..35: what stays of strength and range, their share, weights of means.

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
    bar, or for the newest alone (9, 1, N): the values at each symbol's own last bar. One function:
    its parts share a dozen positions in `state`, and a call for each row costs more than the row.
    """
    rows, symbols = close.shape
    for block in range(len(state)):
        own = state[block]
        first = block * WIDTH
        n = min(WIDTH, symbols - first)
        seen = int(own[_ROWS])
        # Even: nobody lacked a bar in the row before, and no mean is still being begun.
        is_even, row, behind, doubted = False, 0, 0, 0
        while row < rows:
            end = row + min(_STRIDE, (rows - row - 1) // 2 * 2)
            if is_even and end > row >= doubted and not is_every:
                # Rows two at a time, levels read and written once. What is not finite stays in a
                # level, so that one look at the end is enough: then it is all done row by row.
                for j in range(_LEVELS):
                    own[_KEPT + j] = own[_CLOSE + j]
                for pair in range(row, end, 2):
                    h, lo = high[pair, first : first + n], low[pair, first : first + n]
                    c, v = close[pair, first : first + n], volume[pair, first : first + n]
                    h2, lo2 = high[pair + 1, first : first + n], low[pair + 1, first : first + n]
                    c2, v2 = close[pair + 1, first : first + n], volume[pair + 1, first : first + n]
                    for j in range(n):
                        before, price, later = own[_CLOSE + j], c[j], c2[j]
                        top, bottom, top2, bottom2 = h[j], lo[j], h2[j], lo2[j]
                        top = before if before > top else top  # noqa: FURB136  # keeps a NaN
                        bottom = before if before < bottom else bottom  # noqa: FURB136  # keeps a NaN
                        top2 = price if price > top2 else top2  # noqa: FURB136  # keeps a NaN
                        bottom2 = price if price < bottom2 else bottom2  # noqa: FURB136  # keeps a NaN
                        change, change2 = price - before, later - price
                        sign = 1.0 if change > 0.0 else (-1.0 if change < 0.0 else 0.0)
                        sign2 = 1.0 if change2 > 0.0 else (-1.0 if change2 < 0.0 else 0.0)
                        level = own[_DRIFT + j] * _FADING + change
                        own[_DRIFT + j] = level * _FADING + change2
                        level = own[_MOVE + j] * _FADING + abs(change)
                        own[_MOVE + j] = level * _FADING + abs(change2)
                        level = own[_RANGE + j] * _FADING + (top - bottom)
                        own[_RANGE + j] = level * _FADING + (top2 - bottom2)
                        level = own[_FLOW + j] + sign * v[j] + sign2 * v2[j]
                        own[_FLOW + j] = level + 0.0 * ((h[j] - lo[j]) + (h2[j] - lo2[j]))
                        fast = own[_FAST + j]
                        fast += (2.0 / 13.0) * (price - fast)
                        own[_FAST + j] = fast2 = fast + (2.0 / 13.0) * (later - fast)
                        slow = own[_SLOW + j]
                        slow += (2.0 / 27.0) * (price - slow)
                        own[_SLOW + j] = slow2 = slow + (2.0 / 27.0) * (later - slow)
                        level = own[_TRIGGER + j]
                        level = level + 0.2 * (fast - slow - level)
                        own[_TRIGGER + j] = level + 0.2 * (fast2 - slow2 - level)
                        level = (own[_STILL + j] if change == 0.0 else 0.0) + 1.0
                        own[_STILL + j] = (level if change2 == 0.0 else 0.0) + 1.0
                        own[_CLOSE + j] = later
                gaps = 0
                for j in range(n):
                    whole = (own[_RANGE + j] + own[_FLOW + j]) + own[_FAST + j]
                    gaps += 0 if whole - whole == 0.0 else 1
                if gaps == 0:
                    row, behind = end, behind + end - row
                    continue
                for j in range(_LEVELS):
                    own[_CLOSE + j] = own[_KEPT + j]
                doubted = end
            # Closes of rows that were taken together are needed no sooner than here.
            for i in range(max(row - behind, row - _WINDOW), row):
                at = _CLOSES + (seen + i) % _WINDOW * _LINE
                for j in range(n):
                    own[at + j] = close[i, first + j]
            behind = 0
            h, lo = high[row, first : first + n], low[row, first : first + n]
            c, v = close[row, first : first + n], volume[row, first : first + n]
            gaps = others = 0
            for j in range(n):
                whole = (h[j] + lo[j]) + (c[j] + v[j])
                gaps += 0 if whole - whole == 0.0 else 1
                others += 0 if own[_BARS + j] == own[_BARS] else 1
            if gaps + others == 0 and not is_even:
                bar = min(int(own[_BARS]), _WARM) + 1
                is_even = bar > _WARM
                for j in range(n):
                    own[_FADE + j], own[_SHARE + j] = _PACES[0, bar], _PACES[1, bar]
                    own[_FAST_PACE + j], own[_SLOW_PACE + j] = _PACES[2, bar], _PACES[3, bar]
                    own[_TRIGGER_PACE + j] = _PACES[4, bar]
                    own[_BARS + j] += 1.0
            elif gaps or not is_even:
                # Whose bars are enough need not be counted: paces stay while nobody lacks one.
                is_even = gaps == 0
                for j in range(n):
                    whole = (h[j] + lo[j]) + (c[j] + v[j])
                    bar = min(int(own[_BARS + j]), _WARM) + 1 if whole - whole == 0.0 else 0
                    own[_FADE + j], own[_SHARE + j] = _PACES[0, bar], _PACES[1, bar]
                    own[_FAST_PACE + j], own[_SLOW_PACE + j] = _PACES[2, bar], _PACES[3, bar]
                    own[_TRIGGER_PACE + j] = _PACES[4, bar]
                    own[_BARS + j] += 1.0 if bar > 0 else 0.0
                    is_even = is_even and bar > _WARM
            for j in range(n):
                before, slow_pace = own[_CLOSE + j], own[_SLOW_PACE + j]
                top, bottom, price, flow = h[j], lo[j], c[j], v[j]
                price = price if slow_pace > 0.0 else before
                flow = flow if slow_pace > 0.0 else 0.0
                top = top if slow_pace > 0.0 else before
                bottom = bottom if slow_pace > 0.0 else before
                top = top if top > before else before  # noqa: FURB136  # slower with NaN's rules
                bottom = bottom if bottom < before else before  # noqa: FURB136  # slower with NaN's rules
                change = price - before
                sign = 1.0 if change > 0.0 else 0.0
                sign = -1.0 if change < 0.0 else sign
                fade, share = own[_FADE + j], own[_SHARE + j]
                own[_DRIFT + j] = own[_DRIFT + j] * fade + share * change
                own[_MOVE + j] = own[_MOVE + j] * fade + share * abs(change)
                own[_RANGE + j] = own[_RANGE + j] * fade + share * (top - bottom)
                own[_FLOW + j] += sign * flow
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
                # Who has no bar keeps its twenty: they move on by one, the newest is written below.
                for j in range(n):
                    if own[_SLOW_PACE + j] == 0.0 and own[_BARS + j] > 0.0:
                        held = own[_CLOSES + turn * _LINE + j]
                        for i in range(1, _WINDOW):
                            place = _CLOSES + (turn + i) % _WINDOW * _LINE + j
                            held, own[place] = own[place], held
            line = own[_CLOSES + turn * _LINE : _CLOSES + turn * _LINE + n]
            for j in range(n):
                line[j] = own[_CLOSE + j]
            row += 1
            if not is_every and row < rows:
                continue
            told = row - 1 if is_every else 0
            # What is older would be written over before the end.
            for i in range(told if is_every else max(rows - _SPAN, 0), row):
                at = _RETURNS + (seen + i) % _SPAN * _LINE
                line, r = own[at : at + n], returns[i, first : first + n]
                for j in range(n):
                    old, new = line[j], r[j]
                    is_new = 1.0 if new - new == 0.0 else 0.0
                    own[_KNOWN_RETURNS + j] += is_new - (1.0 if old - old == 0.0 else 0.0)
                    own[_RETURN + j] = new if is_new > 0.0 else 0.0
                    line[j] = new
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
            a, b = out[BAND_POSITION, told, first : first + n], out[MEAN, told, first : first + n]
            d = out[FLOW, told, first : first + n]
            for j in range(n):
                bars = own[_BARS + j] if own[_SLOW_PACE + j] > 0.0 or not is_every else 0.0
                mean = own[_SUM + j] * (1.0 / _WINDOW)
                spread = own[_SQUARES + j] * (1.0 / _WINDOW) - mean * mean
                sd = np.sqrt(max(spread, 0.0))
                moves = sd > 0.0 and own[_STILL + j] < _WINDOW
                position = (2.0 * sd - mean) / (4.0 * sd) if moves else np.nan
                a[j] = position if bars >= _WINDOW else np.nan
                b[j] = own[_CLOSE + j] + mean if bars >= _WINDOW else np.nan
                d[j] = own[_FLOW + j] if bars > 0.0 else np.nan
            a, b = out[RSI, told, first : first + n], out[ATR, told, first : first + n]
            for j in range(n):
                bars = own[_BARS + j] if own[_SLOW_PACE + j] > 0.0 or not is_every else 0.0
                moved = own[_MOVE + j]
                strength = 50.0 + 50.0 * (own[_DRIFT + j] / moved) if moved > 0.0 else 50.0
                a[j] = strength if bars > 14.0 else np.nan
                b[j] = own[_RANGE + j] * (1.0 / 14.0) if bars > 14.0 else np.nan
            a, b = out[MACD, told, first : first + n], out[SIGNAL, told, first : first + n]
            d = out[HISTOGRAM, told, first : first + n]
            for j in range(n):
                bars = own[_BARS + j] if own[_SLOW_PACE + j] > 0.0 or not is_every else 0.0
                value, trigger = own[_FAST + j] - own[_SLOW + j], own[_TRIGGER + j]
                is_told = bars >= _WARM and own[_STILL + j] < STILL_BARS
                a[j] = value if is_told else np.nan
                b[j] = trigger if is_told else np.nan
                d[j] = value - trigger if is_told else np.nan
            for j in range(n):
                own[_SUM + j] = own[_SQUARES + j] = 0.0
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
