"""Data quality of candles and quotes: freshness, closed and valid candles, gaps, divergence."""

from collections.abc import Iterable
from dataclasses import fields
from decimal import Decimal
from math import isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.configuration.domain.sections import QualitySettings
from app.foundation.data_status import DataStatus
from app.foundation.decimal_math import to_millionths
from app.market.domain.identity_cache import cached_while_alive
from app.market.domain.models import CandleSeries, Floats, Interval, Ints, Ticker
from app.market.domain.panel import MAX_FORWARD_FILL
from app.market.domain.price_quarantine import deviation
from app.market.domain.segments import in_present_unit

FUTURE_MS: Final = 5_000  # a time further ahead of the exchange's clock is invalid
CLOSE_MARGIN_MS: Final = 2_000  # the exchange's servers agree on a close with this delay
_FIELDS: Final = tuple(field.name for field in fields(CandleSeries))
_ORDER: Final = (DataStatus.FRESH, DataStatus.STALE, DataStatus.UNAVAILABLE)

EMPTY: Final = CandleSeries(np.empty(0, dtype=np.int64), *(np.empty(0) for _ in _FIELDS[1:]))


def freshness(age_s: float | None, limit_s: float) -> DataStatus:
    """Returns fresh up to the limit, stale after it, unavailable for an unknown age."""
    if age_s is None:
        return DataStatus.UNAVAILABLE
    return DataStatus.FRESH if age_s <= limit_s else DataStatus.STALE


def worst(verdicts: Iterable[DataStatus]) -> DataStatus:
    """Returns the least reliable of several verdicts; unavailable for none."""
    return max(verdicts, key=_ORDER.index, default=DataStatus.UNAVAILABLE)


def is_untimely(stamp_ms: int, held_ms: int | None, server_now_ms: int) -> bool:
    """True if a tick is older than the stored one or lies in the future; such a tick is dropped.

    A stored tick in the future does not count: the exchange's clock was set back.
    """
    horizon_ms = server_now_ms + FUTURE_MS
    if stamp_ms > horizon_ms:
        return True
    return held_ms is not None and stamp_ms < held_ms <= horizon_ms


def closed_by_ms(server_now_ms: int) -> int:
    """Returns the time up to which bars are closed, by the exchange's clock."""
    return server_now_ms - CLOSE_MARGIN_MS


def last_closed_open_ms(interval: Interval, server_now_ms: int) -> int:
    """Returns the opening time of the newest closed bar."""
    return closed_by_ms(server_now_ms) // interval.ms * interval.ms - interval.ms


def closed_candles(series: CandleSeries, interval: Interval, server_now_ms: int) -> CandleSeries:
    """Returns only the closed candles; the running one never leaves this function."""
    return _select(series, series.opened_ms + interval.ms <= closed_by_ms(server_now_ms))


def valid_candles(series: CandleSeries, interval: Interval) -> CandleSeries:
    """Returns only the valid candles; a rejected one is a gap.

    Valid: open time on the grid, prices positive and finite, low <= open, close <= high, volume and
    turnover finite and not negative.
    """
    prices = np.stack([series.open, series.high, series.low, series.close])
    flows = np.stack([series.volume, series.turnover])
    sound = (
        (series.opened_ms % interval.grid_ms == 0)
        & np.isfinite(prices).all(axis=0)
        & np.isfinite(flows).all(axis=0)
        & (series.low > 0)
        & (np.minimum(series.open, series.close) >= series.low)
        & (np.maximum(series.open, series.close) <= series.high)
        & (flows >= 0).all(axis=0)
    )
    return _select(series, sound)


def merged(old: CandleSeries, new: CandleSeries, bars: int) -> CandleSeries:
    """Merges both series in order and returns the last `bars`; `new` wins on equal open times."""
    opened: Ints = np.concatenate([new.opened_ms, old.opened_ms])
    rows = np.unique(opened, return_index=True)[1][-bars:]
    return CandleSeries(
        *(np.concatenate([getattr(new, name), getattr(old, name)])[rows] for name in _FIELDS)
    )


def sliced(series: CandleSeries, first: int, last: int) -> CandleSeries:
    """Returns the rows [first, last)."""
    return CandleSeries(*(getattr(series, name)[first:last] for name in _FIELDS))


def changed_candles(answer: CandleSeries, stored: CandleSeries) -> CandleSeries:
    """Returns the candles of an answer that are new or differ from the stored ones."""
    if not len(stored) or not len(answer):
        return answer
    place = np.minimum(np.searchsorted(stored.opened_ms, answer.opened_ms), len(stored) - 1)
    same = np.all(
        [getattr(answer, name) == getattr(stored, name)[place] for name in _FIELDS], axis=0
    )
    return _select(answer, ~same)


def first_missing_ms(
    series: CandleSeries, interval: Interval, bars: int, server_now_ms: int
) -> int | None:
    """Returns the open time of the first bar to request, None when the newest closed bar is stored.

    Continues after the last stored bar, at most `bars` back.
    """
    newest = last_closed_open_ms(interval, server_now_ms)
    oldest = newest - (bars - 1) * interval.ms
    if not len(series):
        return oldest
    wanted = max(oldest, int(series.opened_ms[-1]) + interval.ms)
    return wanted if wanted <= newest else None


def coverage(series: CandleSeries, interval: Interval, bars: int, server_now_ms: int) -> float:
    """Returns the share of the last `bars` closed bars that are present, 0..1."""
    newest = last_closed_open_ms(interval, server_now_ms)
    inside = series.opened_ms > newest - bars * interval.ms
    return float(np.count_nonzero(inside & (series.opened_ms <= newest))) / bars


def forward_filled_bars(series: CandleSeries, interval: Interval) -> int:
    """Returns the number of bars that scoring fills into short gaps, flat and without volume."""
    gaps = np.diff(series.opened_ms) // interval.ms - 1
    return int(gaps[gaps <= MAX_FORWARD_FILL].sum())


def median_turnover(series: CandleSeries, days: int) -> Decimal | None:
    """Returns the median turnover of the last `days` candles in quote currency; None with fewer."""
    if len(series) < days:
        return None
    return Decimal(str(round(float(np.median(series.turnover[-days:])), 2)))


def _select(series: CandleSeries, rows: NDArray[np.bool_]) -> CandleSeries:
    if rows.all():
        return series
    picked: list[Floats] = [getattr(series, name)[rows] for name in _FIELDS[1:]]
    return CandleSeries(series.opened_ms[rows], *picked)


def diverged_since(
    since: float | None, streamed: Ticker, polled: Ticker, at: float, rules: QualitySettings
) -> float | None:
    """Returns the monotonic second since which streamed and polled quotes differ, else None.

    `since` is the result of the previous comparison. Mid prices are compared; a quote with a
    missing side leaves `since` unchanged.
    """
    away = deviation(_mid(streamed), _mid(polled))
    if away is None:
        return since
    if to_millionths(away) <= to_millionths(rules.max_quote_divergence):
        return None
    return at if since is None else since


def has_diverged(since: float, at: float, rules: QualitySettings) -> bool:
    """True if streamed and polled quotes have differed for too long to accept either."""
    return at - since >= rules.quote_divergence_after_s


def _mid(quote: Ticker) -> Decimal | None:
    if quote.bid is None or quote.ask is None:
        return None
    return (quote.bid + quote.ask) / 2


_LEAST_HOURS: Final = 7  # days with a known volume of the hour
_MOST: Final = 1e6  # cap of a reported deviation
_MOST_CONFIRMED: Final = (
    5.0  # largest multiple of the usual volume that a wide price range explains
)


def average_price_deviation(
    turnover: float, volume: float, low: float, high: float
) -> float | None:
    """Returns how far the average price, turnover / volume, lies outside `low` and `high`.

    A fraction, 0 between them; None without volume or prices. For linear contracts, with turnover
    in quote currency.
    """
    if not (volume > 0.0 and turnover >= 0.0 and 0.0 < low <= high):
        return None
    average = turnover / volume
    below = low / average - 1.0 if average > 0.0 else _MOST
    return min(max(below, average / high - 1.0, 0.0), _MOST)


@cached_while_alive  # the series of a symbol changes once an hour
def newest_price_deviation(hourly: CandleSeries) -> float | None:
    """Returns `average_price_deviation` of the newest candle; None without candles."""
    if not len(hourly):
        return None
    figures = (hourly.turnover, hourly.volume, hourly.low, hourly.high)
    return average_price_deviation(*(float(values[-1]) for values in figures))


@cached_while_alive
def volume_jump(hourly: CandleSeries) -> float | None:
    """Returns the volume of the newest hour over the median of the same hour on other days.

    A moving market trades more. Where the price range is wider than the median range, the result is
    divided by the ratio of the two, at most by five. None where fewer than seven other days have
    the hour, or where the volume is unknown. Hours before a redenomination count other coins and
    are left out.
    """
    hourly = in_present_unit(hourly)
    if not len(hourly):
        return None
    same_hour = (hourly.opened_ms[-1] - hourly.opened_ms[:-1]) % Interval.DAY.ms == 0
    others = hourly.volume[:-1][same_hour]
    if len(others) < _LEAST_HOURS or not (usual := float(np.median(others))) > 0.0:
        return None
    newest = float(hourly.volume[-1])
    return newest / usual / _confirmed(hourly) if isfinite(newest) else None


def _confirmed(hourly: CandleSeries) -> float:
    """Returns the multiple of the usual volume that the newest price range explains.

    1 where a range is unknown.
    """
    known = (hourly.low > 0.0) & np.isfinite(hourly.high)
    others = known[:-1]
    if not known[-1] or not others.any():
        return 1.0
    usual = float(np.median(hourly.high[:-1][others] / hourly.low[:-1][others] - 1.0))
    newest = float(hourly.high[-1] / hourly.low[-1] - 1.0)
    return min(max(newest / usual, 1.0), _MOST_CONFIRMED) if usual > 0.0 else 1.0


def longest_gap(series: CandleSeries, interval: Interval) -> int:
    """Returns the largest number of consecutive missing candles between two present ones."""
    if len(series) < 2:
        return 0
    return int(np.max(np.diff(series.opened_ms)) // interval.ms - 1)
