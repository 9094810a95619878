"""Volatility from the range of bars; (T, N) bars in, (N,) annualised fractions out (365 days).

Bars with a hole are left out; an answer from fewer than `least` bars is NaN. Source: QUANT
section 4. In a market that never closes the open is the close before, so that Yang-Zhang is close
to Rogers-Satchell; neither is moved by a trend, which the others take for volatility.
"""

import numpy as np

from app.market.domain.models import DAYS_A_YEAR, Floats


def parkinson(high: Floats, low: Floats, *, least: int) -> Floats:
    """sqrt(mean(ln(H/L)^2) / (4 ln 2))."""
    return _annual(_mean(np.log(high / low) ** 2, least) / (4.0 * np.log(2.0)))


def rogers_satchell(
    open_: Floats, high: Floats, low: Floats, close: Floats, *, least: int
) -> Floats:
    """sqrt(mean(u (u - c) + d (d - c))) with u, d and c from the open to high, low and close."""
    return _annual(_mean(_drift_free(open_, high, low, close), least))


def yang_zhang(open_: Floats, high: Floats, low: Floats, close: Floats, *, least: int) -> Floats:
    """Overnight, open-to-close and range variance together; one more bar gives the close before.

    sqrt(var(ln O/C-1) + k var(ln C/O) + (1 - k) RS), k = 0.34 / (1.34 + (n + 1) / (n - 1)) over
    the n bars after the first one. Needs two of them at least.
    """
    gap, way = np.log(open_[1:] / close[:-1]), np.log(close[1:] / open_[1:])
    ranges = _drift_free(open_[1:], high[1:], low[1:], close[1:])
    there = np.isfinite(gap) & np.isfinite(ranges)
    gap, way, ranges = (np.where(there, one, np.nan) for one in (gap, way, ranges))
    count = np.where(there.sum(axis=0) > 1, there.sum(axis=0), np.nan)
    share = 0.34 / (1.34 + (count + 1.0) / (count - 1.0))
    return _annual(
        _variance(gap, least) + share * _variance(way, least) + (1.0 - share) * _mean(ranges, least)
    )


def _drift_free(open_: Floats, high: Floats, low: Floats, close: Floats) -> Floats:
    up, down, way = np.log(high / open_), np.log(low / open_), np.log(close / open_)
    return np.asarray(up * (up - way) + down * (down - way), np.float64)


def _mean(values: Floats, least: int) -> Floats:
    count = np.isfinite(values).sum(axis=0)
    enough = np.where(count >= max(least, 1), count, np.nan)
    return np.asarray(np.nansum(values, axis=0) / enough, np.float64)


def _variance(values: Floats, least: int) -> Floats:
    """Sample variance (ddof 1)."""
    count = np.isfinite(values).sum(axis=0)
    away = (values - _mean(values, least)) ** 2
    more = np.where(count > 1, count - 1.0, np.nan)
    return np.asarray(np.nansum(away, axis=0) / more, np.float64)


def _annual(variance: Floats) -> Floats:
    return np.sqrt(variance * DAYS_A_YEAR)
