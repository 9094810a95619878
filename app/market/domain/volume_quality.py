"""Volume judged like price: turnover against volume times price, and jumps of one hour."""

from functools import lru_cache
from math import isfinite
from typing import Final

import numpy as np

from app.market.domain.models import CandleSeries, Interval

_LEAST_HOURS: Final = 7  # days on which the hour was seen
_MOST: Final = 1e6  # that is told of a deviation
_MOST_CONFIRMED: Final = 5.0  # times a usual volume that a wide price range explains at most


def turnover_off_price(turnover: float, volume: float, low: float, high: float) -> float | None:
    """How far the average price, turnover / volume, lies beyond `low` and `high`; 0 between them.

    A fraction; None without volume or prices. For linear contracts: turnover in quote currency.
    """
    if not (volume > 0.0 and turnover >= 0.0 and 0.0 < low <= high):
        return None
    average = turnover / volume
    below = low / average - 1.0 if average > 0.0 else _MOST
    return min(max(below, average / high - 1.0, 0.0), _MOST)


@lru_cache(maxsize=1024)  # by identity: the series of a symbol changes once an hour
def newest_off_price(hourly: CandleSeries) -> float | None:
    """`turnover_off_price` of the newest candle."""
    if not len(hourly):
        return None
    figures = (hourly.turnover, hourly.volume, hourly.low, hourly.high)
    return turnover_off_price(*(float(values[-1]) for values in figures))


@lru_cache(maxsize=1024)
def volume_jump(hourly: CandleSeries) -> float | None:
    """Volume of the newest hour over the median of the same hour of other days.

    A market that moves trades more: where the price range is wider than the median range, the
    result is divided by the ratio of the two, and by five at most. None where the hour was seen on
    fewer than seven other days, or where the volume is unknown.
    """
    if not len(hourly):
        return None
    same_hour = (hourly.opened_ms[-1] - hourly.opened_ms[:-1]) % Interval.DAY.ms == 0
    others = hourly.volume[:-1][same_hour]
    if len(others) < _LEAST_HOURS or not (usual := float(np.median(others))) > 0.0:
        return None
    newest = float(hourly.volume[-1])
    return newest / usual / _confirmed(hourly) if isfinite(newest) else None


def _confirmed(hourly: CandleSeries) -> float:
    """Times a usual volume that the newest price range explains: 1 where a range is unknown."""
    known = (hourly.low > 0.0) & np.isfinite(hourly.high)
    others = known[:-1]
    if not known[-1] or not others.any():
        return 1.0
    usual = float(np.median(hourly.high[:-1][others] / hourly.low[:-1][others] - 1.0))
    newest = float(hourly.high[-1] / hourly.low[-1] - 1.0)
    return min(max(newest / usual, 1.0), _MOST_CONFIRMED) if usual > 0.0 else 1.0


def longest_gap(series: CandleSeries, interval: Interval) -> int:
    """Most candles in a row that are missing between two that are here."""
    if len(series) < 2:
        return 0
    return int(np.max(np.diff(series.opened_ms)) // interval.ms - 1)
