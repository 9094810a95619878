"""Factors of closed bars: fast ones on hourly bars, slow ones on daily bars.

Each takes the scoring inputs and gives (N,) raw values, NaN where there are too few bars. A window
of W days needs three quarters of them, so that a listing of 90 days has every factor.
"""

from functools import lru_cache

import numpy as np

from app.market.domain import return_statistics as measures
from app.market.domain.liquidity import illiquidity
from app.market.domain.models import Floats
from app.market.domain.panel import ScoringInputs, UnbrokenPanel, log_returns, unbroken
from app.scoring.domain.last_bar import LastBarIndicators, indicators_at_last_bar

HOURLY_BARS = 250  # below it the seed of a recursive indicator still shows
_HOURLY_LAG = 3  # bars; an hour without trades has no candle
_DAILY_LAG = 2  # bars; the candle of yesterday arrives some time after midnight


def nearness_to_high(inputs: ScoringInputs) -> Floats:
    """ln(last close / highest close of 60 days), at most 0."""
    close = unbroken(inputs.daily).close[-60:]
    value = np.log(_latest(close, _DAILY_LAG) / np.fmax.reduce(close, initial=np.nan))
    return _enough(value, close, 45)


def rsi_14(inputs: ScoringInputs) -> Floats:
    return _fast(inputs, _at_last_bar(unbroken(inputs.hourly)).rsi)


def macd_histogram(inputs: ScoringInputs) -> Floats:
    return _fast(inputs, _at_last_bar(unbroken(inputs.hourly)).macd_in_ranges)


def bollinger_position(inputs: ScoringInputs) -> Floats:
    return _fast(inputs, _at_last_bar(unbroken(inputs.hourly)).band_position)


def volume_trend(inputs: ScoringInputs) -> Floats:
    """ln(mean turnover of 5 days / mean turnover of 30 days)."""
    turnover = unbroken(inputs.daily).turnover
    return np.log(_mean(turnover[-5:], 4) / _mean(turnover[-30:], 23))


def volume_growth(inputs: ScoringInputs) -> Floats:
    """ln(mean turnover of 30 days / mean turnover of the 60 days before)."""
    turnover = unbroken(inputs.daily).turnover
    return np.log(_mean(turnover[-30:], 23) / _mean(turnover[-90:-30], 45))


def efficiency(inputs: ScoringInputs) -> Floats:
    """-|ln VR(5)| of 60 daily returns: 0 for a random walk."""
    return -np.abs(np.log(measures.variance_ratio(_returns(inputs, 60), 5, 45)))


def volatility(inputs: ScoringInputs) -> Floats:
    """EWMA volatility over all daily returns at hand, annualised."""
    return measures.ewma_volatility(log_returns(unbroken(inputs.daily)))


def range_volatility(inputs: ScoringInputs) -> Floats:
    bars = unbroken(inputs.daily)
    return measures.garman_klass(
        bars.open[-30:], bars.high[-30:], bars.low[-30:], bars.close[-30:], 23
    )


def idiosyncratic_volatility(inputs: ScoringInputs) -> Floats:
    return _market_model(inputs).residual_volatility


def btc_correlation(inputs: ScoringInputs) -> Floats:
    return _market_model(inputs).correlation


def highest_return(inputs: ScoringInputs) -> Floats:
    return measures.highest_return(_returns(inputs, 30), 23)


def drawdown(inputs: ScoringInputs) -> Floats:
    return measures.worst_drawdown(unbroken(inputs.daily).close[-90:], 68)


def liquidity_risk(inputs: ScoringInputs) -> Floats:
    """ln of the sd of |return| / turnover over 30 days."""
    returns = _returns(inputs, 30)
    turnover = unbroken(inputs.daily).turnover[1:][-30:]
    return np.log(illiquidity(returns, turnover, 23)[1])


def _market_model(inputs: ScoringInputs) -> measures.MarketModel:
    """60 daily returns on BTC's; all unknown where BTC is not among the symbols."""
    returns = _returns(inputs, 60)
    known = measures.MARKET in inputs.symbols
    market = (
        returns[:, inputs.symbols.index(measures.MARKET)]
        if known
        else np.full(len(returns), np.nan)
    )
    return measures.market_model(returns, market, 45)


def _returns(inputs: ScoringInputs, days: int) -> Floats:
    return log_returns(unbroken(inputs.daily), days)


@lru_cache(maxsize=1)
def _at_last_bar(bars: UnbrokenPanel) -> LastBarIndicators:
    """Computed once for the three factors of one panel."""
    return indicators_at_last_bar(bars.high, bars.low, bars.close, bars.volume)


def _fast(inputs: ScoringInputs, values: Floats) -> Floats:
    """Where a symbol's last bar is not too old, and enough are before it."""
    close = unbroken(inputs.hourly).close
    young = np.isfinite(close[-_HOURLY_LAG:]).any(axis=0)
    return _enough(np.where(young, values, np.nan), close, HOURLY_BARS)


def _latest(values: Floats, lag: int) -> Floats:
    """The newest known value among the last `lag` rows."""
    out = np.full(values.shape[1], np.nan)
    for row in values[-lag:]:
        out = np.where(np.isfinite(row), row, out)
    return out


def _mean(values: Floats, least: int) -> Floats:
    return _enough(np.nansum(values, axis=0) / np.isfinite(values).sum(axis=0), values, least)


def _enough(values: Floats, observed: Floats, least: int) -> Floats:
    return np.where(np.isfinite(observed).sum(axis=0) >= least, values, np.nan)
