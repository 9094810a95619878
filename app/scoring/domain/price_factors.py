"""Factors of closed bars: indicators at the newest hourly bar, slow factors on daily bars.

A recursive mean is a weighted sum of its seed and of every later value, so that a whole universe
takes a few passes over its arrays. Sums run along axis 0 of C-ordered arrays, row after row: the
same order on every processor (the order of a matrix product differs between processors). Closes
are differences to the last close: a price of 1e-5 loses no digit, and an unchanged price gives
exact zeros.

Each factor takes the scoring inputs and returns (N,) raw values, NaN with too few bars. A window
of W days needs three quarters of them, so that a listing of 90 days has every factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from app.market.domain import return_statistics as measures
from app.market.domain.liquidity import illiquidity
from app.market.domain.models import Floats, Ints
from app.market.domain.panel import Bools, ScoringInputs
from app.market.domain.segments import ContiguousPanel, contiguous, log_returns

STILL_BARS: Final = 100  # equal closes after which MACD is only a rounding residue of old moves
_WILDER_BARS: Final = 14
_BAND_BARS: Final = 20
_FAST, _SLOW, _SIGNAL = 12, 26, 9
_BLOCK: Final = 96  # symbols at a time, so that their arrays fit the processor's cache
_MACD_BARS: Final = _SLOW + _SIGNAL - 1  # bars of the first MACD with a signal


@dataclass(frozen=True, slots=True, eq=False)
class LastBarIndicators:
    """(N,) each; NaN for a symbol with too few bars."""

    rsi: Floats  # Wilder, 14 bars, 0..100; 50 where the price never moved
    macd_in_ranges: Floats  # histogram of MACD(12, 26, 9) in ATR14; NaN after 100 equal closes
    band_position: Floats  # %b of 20 bars, 2 population sd; NaN after 20 equal closes


def indicators_at_last_bar(
    high: Floats, low: Floats, close: Floats, volume: Floats
) -> LastBarIndicators:
    """Indicators of (T, N) bars; a row that lacks one of the four values is no bar of that symbol.

    Values, seeds and warm-up are those of TA-Lib; the deviations are in the fields' comments.
    """
    blocks = [
        _indicators_of_block(
            *(field[:, begin : begin + _BLOCK] for field in (high, low, close, volume))
        )
        for begin in range(0, max(close.shape[1], 1), _BLOCK)
    ]
    return LastBarIndicators(*np.concatenate(blocks, axis=1))


def _indicators_of_block(high: Floats, low: Floats, close: Floats, volume: Floats) -> Floats:
    """(3, N) fields of `LastBarIndicators`."""
    rows, symbols = close.shape
    if rows < _MACD_BARS or symbols < 2:  # numpy sums a single column in another order
        missing = (max(_MACD_BARS - rows, 0), 0), (0, max(2 - symbols, 0))
        wide = (np.pad(one, missing, constant_values=np.nan) for one in (high, low, close, volume))
        return _indicators_of_block(*wide)[:, :symbols]
    first, high, low, close = _aligned(high, low, close, volume)
    bars = rows - first
    still = _still_bars(close, first)
    row = np.arange(rows)[:, None]
    is_later = row[1:] > first  # a change belongs to the later of its two bars
    before = close[:-1]
    change = np.where(is_later, close[1:] - before, 0.0)
    ranges = np.where(is_later, np.maximum(high[1:], before) - np.minimum(low[1:], before), 0.0)
    drift, moved, reach = _wilder((change, np.abs(change), ranges), first)
    strength = 50.0 + 50.0 * (drift / np.where(moved > 0.0, moved, 1.0))
    has_macd = (bars >= _MACD_BARS) & (still < STILL_BARS) & (reach > 0.0)
    away = np.where(row >= first, close - close[-1], 0.0)
    histogram = _macd_histogram(away, first)
    position = _band_position(away[-_BAND_BARS:])
    has_band = (bars >= _BAND_BARS) & (still < _BAND_BARS)
    return np.array(
        [
            np.where(bars > _WILDER_BARS, strength, np.nan),
            np.where(has_macd, histogram / np.where(has_macd, reach, 1.0), np.nan),
            np.where(has_band, position, np.nan),
        ]
    )


def _aligned(
    high: Floats, low: Floats, close: Floats, volume: Floats
) -> tuple[Ints, Floats, Floats, Floats]:
    """(N,) row of each first bar, and prices with the bars of a symbol at the end of its column.

    Rows before the first bar have arbitrary values.
    """
    is_bar = np.isfinite(high + low + close + volume)
    first = len(close) - is_bar.sum(axis=0)
    apart = np.flatnonzero((is_bar != (np.arange(len(close))[:, None] >= first)).any(axis=0))
    prices: list[Floats] = [np.ascontiguousarray(field) for field in (high, low, close)]
    if len(apart):
        order = np.argsort(is_bar[:, apart], axis=0, kind="stable")
        prices = [field.copy() for field in prices]
        for field in prices:
            field[:, apart] = np.take_along_axis(field[:, apart], order, axis=0)
    return np.asarray(first, np.int64), prices[0], prices[1], prices[2]


def _still_bars(close: Floats, first: Ints) -> Ints:
    """(N,) number of newest bars equal to the last close, up to `STILL_BARS`."""
    newest = close[-STILL_BARS:]
    rows = np.arange(len(close) - len(newest), len(close))[:, None]
    differs = (newest != close[-1]) | (rows < first)
    return np.where(differs.any(axis=0), np.argmax(differs[::-1], axis=0), len(newest))


def _wilder(changes: Sequence[Floats], first: Ints) -> list[Floats]:
    """(N,) Wilder's mean of each (T - 1, N) at the last row, seeded with a plain mean."""
    rows, bars = len(changes[0]), _WILDER_BARS
    decay = _powers(1.0 - 1.0 / bars, rows + 1)
    weights = _of_later_bars(decay[rows - 1 :: -1] / bars, first + bars)
    seed_weight = decay[np.maximum(rows - first - bars, 0)] / bars
    return [
        (weights * values).sum(axis=0) + seed_weight * _first_rows(values, first, bars).sum(axis=0)
        for values in changes
    ]


def _macd_histogram(away: Floats, first: Ints) -> Floats:
    """(N,) MACD line less its signal at the last row of (T, N) closes less the last close.

    Recursion over the first 34 bars seeds both means and the signal. The remainder of the seeds at
    the last row, and the effect of each later bar, are powers of the three decays.
    """
    seed = _first_rows(away, first, _MACD_BARS)
    fast, slow = seed[_SLOW - _FAST : _SLOW].sum(axis=0) / _FAST, seed[:_SLOW].sum(axis=0) / _SLOW
    line = fast - slow
    signal = line
    for row in range(_SLOW, _MACD_BARS):
        fast = fast + _ewma_weight(_FAST) * (seed[row] - fast)
        slow = slow + _ewma_weight(_SLOW) * (seed[row] - slow)
        line = fast - slow
        signal = signal + line
    signal = signal / _SIGNAL
    added, fast_left, slow_left, signal_left = _macd_weights(len(away) + 1)
    since = np.maximum(len(away) - first - _MACD_BARS, 0)
    weights = _of_later_bars(added[len(away) - 1 :: -1], first + _MACD_BARS)
    rest = fast_left[since] * fast - slow_left[since] * slow - signal_left[since] * signal
    return np.asarray((weights * away).sum(axis=0) + rest, np.float64)


@lru_cache(maxsize=4)
def _macd_weights(rows: int) -> tuple[Floats, Floats, Floats, Floats]:
    """(rows,) each: remaining weights in the histogram, by number of bars passed since.

    Weights of a close, of the fast mean, of the slow mean and of the signal.
    """
    signal_decay = _powers(1.0 - _ewma_weight(_SIGNAL), rows)
    added, left = np.zeros(rows), []
    for bars, sign in ((_FAST, 1.0), (_SLOW, -1.0)):
        decay = _powers(1.0 - _ewma_weight(bars), rows)
        in_signal = np.empty(rows)  # share in the signal of a mean that was 1 and decays
        level = 0.0
        for row in range(rows):
            level += _ewma_weight(_SIGNAL) * (float(decay[row]) - level)
            in_signal[row] = level
        added += sign * _ewma_weight(bars) * (decay - in_signal)
        left.append(decay - (in_signal - _ewma_weight(_SIGNAL) * signal_decay))
    return added, left[0], left[1], signal_decay


def _band_position(away: Floats) -> Floats:
    """(N,) position of the last close between the bands; the last row of `away` is 0."""
    mean = away.sum(axis=0) / _BAND_BARS
    sd = np.sqrt(((away - mean) ** 2).sum(axis=0) / _BAND_BARS)
    return np.asarray((2.0 * sd - mean) / (4.0 * np.where(sd > 0.0, sd, np.nan)), np.float64)


def _ewma_weight(bars: int) -> float:
    """Weight of the newest value in an exponential mean of `bars` bars."""
    return 2.0 / (bars + 1)


@lru_cache(maxsize=16)
def _powers(decay: float, rows: int) -> Floats:
    """decay ** (0, 1, ... rows - 1) by multiplication: `pow` differs between processors."""
    powers = np.full(rows, decay)
    powers[:1] = 1.0
    return np.multiply.accumulate(powers)


def _first_rows(values: Floats, first: Ints, count: int) -> Floats:
    """(count, N) first values of each column; the last row repeats where there are fewer."""
    rows = np.minimum(first + np.arange(count)[:, None], len(values) - 1)
    return np.take_along_axis(values, rows, axis=0)


def _of_later_bars(weights: Floats, begin: Ints) -> Floats:
    """(T, N) weights (T,) from row `begin` (N,) of each column on, 0 before it."""
    is_later: Bools = np.arange(len(weights))[:, None] >= begin
    return np.where(is_later, weights[:, None], 0.0)


HOURLY_BARS = 250  # with fewer bars the seed of a recursive indicator still has an effect
_HOURLY_LAG = 3  # bars; an hour without trades has no candle
_DAILY_LAG = 2  # bars; the candle of yesterday arrives some time after midnight


def nearness_to_high(inputs: ScoringInputs) -> Floats:
    """ln(last close / highest close of 60 days), at most 0."""
    close = contiguous(inputs.daily).close[-60:]
    value = np.log(_latest(close, _DAILY_LAG) / np.fmax.reduce(close, initial=np.nan))
    return _with_min_bars(value, close, 45)


def rsi_14(inputs: ScoringInputs) -> Floats:
    return _hourly_value(inputs, _at_last_bar(contiguous(inputs.hourly)).rsi)


def macd_histogram(inputs: ScoringInputs) -> Floats:
    return _hourly_value(inputs, _at_last_bar(contiguous(inputs.hourly)).macd_in_ranges)


def bollinger_position(inputs: ScoringInputs) -> Floats:
    return _hourly_value(inputs, _at_last_bar(contiguous(inputs.hourly)).band_position)


def volume_trend(inputs: ScoringInputs) -> Floats:
    """ln(mean turnover of 5 days / mean turnover of 30 days)."""
    turnover = contiguous(inputs.daily).turnover
    return np.log(_mean(turnover[-5:], 4) / _mean(turnover[-30:], 23))


def volume_growth(inputs: ScoringInputs) -> Floats:
    """ln(mean turnover of 30 days / mean turnover of the 60 days before)."""
    turnover = contiguous(inputs.daily).turnover
    return np.log(_mean(turnover[-30:], 23) / _mean(turnover[-90:-30], 45))


def efficiency(inputs: ScoringInputs) -> Floats:
    """-|ln VR(5)| of 60 daily returns: 0 for a random walk."""
    return -np.abs(np.log(measures.variance_ratio(_returns(inputs, 60), 5, 45)))


def volatility(inputs: ScoringInputs) -> Floats:
    """EWMA volatility over all available daily returns, annualised."""
    return measures.ewma_volatility(log_returns(contiguous(inputs.daily)))


def range_volatility(inputs: ScoringInputs) -> Floats:
    bars = contiguous(inputs.daily)
    return measures.garman_klass(
        bars.open[-30:], bars.high[-30:], bars.low[-30:], bars.close[-30:], 23
    )


def idiosyncratic_volatility(inputs: ScoringInputs) -> Floats:
    return _market_model(inputs).residual_volatility


def btc_correlation(inputs: ScoringInputs) -> Floats:
    return _market_model(inputs).correlation


def btc_beta(inputs: ScoringInputs) -> Floats:
    return _market_model(inputs).beta


def highest_return(inputs: ScoringInputs) -> Floats:
    return measures.highest_return(_returns(inputs, 30), 23)


def drawdown(inputs: ScoringInputs) -> Floats:
    return measures.worst_drawdown(contiguous(inputs.daily).close[-90:], 68)


def liquidity_risk(inputs: ScoringInputs) -> Floats:
    """ln of the sd of |return| / turnover over 30 days."""
    returns = _returns(inputs, 30)
    turnover = contiguous(inputs.daily).turnover[1:][-30:]
    return np.log(illiquidity(returns, turnover, 23)[1])


def _market_model(inputs: ScoringInputs) -> measures.MarketModel:
    """Market model of 60 daily returns on BTC's; all NaN if BTC is not among the symbols."""
    returns = _returns(inputs, 60)
    known = measures.MARKET in inputs.symbols
    market = (
        returns[:, inputs.symbols.index(measures.MARKET)]
        if known
        else np.full(len(returns), np.nan)
    )
    return measures.market_model(returns, market, 45)


def _returns(inputs: ScoringInputs, days: int) -> Floats:
    return log_returns(contiguous(inputs.daily), days)


@lru_cache(maxsize=1)
def _at_last_bar(bars: ContiguousPanel) -> LastBarIndicators:
    """Indicators of a panel, computed once for three factors."""
    return indicators_at_last_bar(bars.high, bars.low, bars.close, bars.volume)


def _hourly_value(inputs: ScoringInputs, values: Floats) -> Floats:
    """`values` of symbols with a recent bar and enough bars before it; others NaN."""
    close = contiguous(inputs.hourly).close
    is_recent = np.isfinite(close[-_HOURLY_LAG:]).any(axis=0)
    return _with_min_bars(np.where(is_recent, values, np.nan), close, HOURLY_BARS)


def _latest(values: Floats, lag: int) -> Floats:
    """(N,) newest known value among the last `lag` rows."""
    out = np.full(values.shape[1], np.nan)
    for row in values[-lag:]:
        out = np.where(np.isfinite(row), row, out)
    return out


def _mean(values: Floats, least: int) -> Floats:
    return _with_min_bars(
        np.nansum(values, axis=0) / np.isfinite(values).sum(axis=0), values, least
    )


def _with_min_bars(values: Floats, observed: Floats, least: int) -> Floats:
    return np.where(np.isfinite(observed).sum(axis=0) >= least, values, np.nan)
