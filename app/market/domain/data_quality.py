"""Data-quality verdicts: fresh or stale, closed or running, sound or rejected, whole or gapped."""

from collections.abc import Iterable
from dataclasses import fields
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.configuration.domain.sections import QualitySettings
from app.foundation.data_status import DataStatus
from app.foundation.decimal_math import to_millionths
from app.market.domain.models import CandleSeries, Floats, Interval, Ints, Ticker
from app.market.domain.panel import LONGEST_BRIDGE, in_present_unit
from app.market.domain.price_quarantine import deviation

FUTURE_MS: Final = 5_000  # a time further ahead of the exchange's clock is no time
CLOSE_MARGIN_MS: Final = 2_000  # the exchange's servers agree on a close only after a moment
_FIELDS: Final = tuple(field.name for field in fields(CandleSeries))
_ORDER: Final = (DataStatus.FRESH, DataStatus.STALE, DataStatus.UNAVAILABLE)

EMPTY: Final = CandleSeries(np.empty(0, dtype=np.int64), *(np.empty(0) for _ in _FIELDS[1:]))


def freshness(age_s: float | None, limit_s: float) -> DataStatus:
    """Fresh up to the limit, stale after it, unavailable when there never was a value."""
    if age_s is None:
        return DataStatus.UNAVAILABLE
    return DataStatus.FRESH if age_s <= limit_s else DataStatus.STALE


def worst(verdicts: Iterable[DataStatus]) -> DataStatus:
    """The least reliable of several verdicts; of none: unavailable."""
    return max(verdicts, key=_ORDER.index, default=DataStatus.UNAVAILABLE)


def is_untimely(stamp_ms: int, held_ms: int | None, server_now_ms: int) -> bool:
    """Whether a tick comes late, after a newer one, or from the future: then it is dropped.

    A held tick that lies in the future itself says nothing: the exchange's clock was set back.
    """
    horizon_ms = server_now_ms + FUTURE_MS
    if stamp_ms > horizon_ms:
        return True
    return held_ms is not None and stamp_ms < held_ms <= horizon_ms


def closed_by_ms(server_now_ms: int) -> int:
    """Bars that end at or before this instant are closed, by the exchange's clock."""
    return server_now_ms - CLOSE_MARGIN_MS


def last_closed_open_ms(interval: Interval, server_now_ms: int) -> int:
    """When the newest closed bar opened."""
    return closed_by_ms(server_now_ms) // interval.ms * interval.ms - interval.ms


def closed_part(series: CandleSeries, interval: Interval, server_now_ms: int) -> CandleSeries:
    """Only the candles that have closed: the running one never leaves this function."""
    return _select(series, series.opened_ms + interval.ms <= closed_by_ms(server_now_ms))


def sound_part(series: CandleSeries, interval: Interval) -> CandleSeries:
    """Only candles that make sense; a rejected one is a gap.

    Sound: open time on the grid, prices positive and finite, low <= open, close <= high,
    volume and turnover finite and not negative.
    """
    prices = np.stack([series.open, series.high, series.low, series.close])
    flows = np.stack([series.volume, series.turnover])
    sound = (
        (series.opened_ms % interval.ms == 0)
        & np.isfinite(prices).all(axis=0)
        & np.isfinite(flows).all(axis=0)
        & (series.low > 0)
        & (np.minimum(series.open, series.close) >= series.low)
        & (np.maximum(series.open, series.close) <= series.high)
        & (flows >= 0).all(axis=0)
    )
    return _select(series, sound)


def merged(old: CandleSeries, new: CandleSeries, bars: int) -> CandleSeries:
    """Both series in order, the newer word winning on the same open time; the last `bars`."""
    opened: Ints = np.concatenate([new.opened_ms, old.opened_ms])
    kept = np.unique(opened, return_index=True)[1][-bars:]
    return CandleSeries(
        *(np.concatenate([getattr(new, name), getattr(old, name)])[kept] for name in _FIELDS)
    )


def news_in(answer: CandleSeries, held: CandleSeries) -> CandleSeries:
    """What an answer says that is not held yet: later bars, and bars that were changed."""
    if not len(held) or not len(answer):
        return answer
    place = np.minimum(np.searchsorted(held.opened_ms, answer.opened_ms), len(held) - 1)
    same = np.all([getattr(answer, name) == getattr(held, name)[place] for name in _FIELDS], axis=0)
    return _select(answer, ~same)


def wanted_from_ms(
    series: CandleSeries, interval: Interval, bars: int, server_now_ms: int
) -> int | None:
    """Open time of the first bar to ask for, or None when the newest closed bar is here.

    Continues after the last known bar; starts `bars` back where nothing (or only old) is known.
    """
    newest = last_closed_open_ms(interval, server_now_ms)
    oldest = newest - (bars - 1) * interval.ms
    if not len(series):
        return oldest
    wanted = max(oldest, int(series.opened_ms[-1]) + interval.ms)
    return wanted if wanted <= newest else None


def coverage(series: CandleSeries, interval: Interval, bars: int, server_now_ms: int) -> float:
    """Share of the last `bars` closed bars that are here, 0..1."""
    newest = last_closed_open_ms(interval, server_now_ms)
    inside = series.opened_ms > newest - bars * interval.ms
    return float(np.count_nonzero(inside & (series.opened_ms <= newest))) / bars


def bridged_bars(series: CandleSeries, interval: Interval) -> int:
    """How many bars a scoring puts into short gaps, flat and without volume."""
    gaps = np.diff(series.opened_ms) // interval.ms - 1
    return int(gaps[gaps <= LONGEST_BRIDGE].sum())


def median_turnover(series: CandleSeries, days: int) -> Decimal | None:
    """Median turnover of the last `days` candles in quote currency; None with fewer."""
    if len(series) < days:
        return None
    return Decimal(str(round(float(np.median(series.turnover[-days:])), 2)))


def _select(series: CandleSeries, rows: NDArray[np.bool_]) -> CandleSeries:
    if rows.all():
        return series
    picked: list[Floats] = [getattr(series, name)[rows] for name in _FIELDS[1:]]
    return CandleSeries(series.opened_ms[rows], *picked)


def parted_since(
    since: float | None, told: Ticker, answered: Ticker, at: float, rules: QualitySettings
) -> float | None:
    """Since which second both ways differ, after one more look at them; None while they agree.

    Mid prices are compared. Where one side of a quote is missing nothing is learned.
    """
    away = deviation(_mid(told), _mid(answered))
    if away is None:
        return since
    if to_millionths(away) <= to_millionths(rules.max_quote_divergence):
        return None
    return at if since is None else since


def has_diverged(since: float, at: float, rules: QualitySettings) -> bool:
    """Whether both ways have differed for so long that neither is believed."""
    return at - since >= rules.quote_divergence_after_s


def _mid(quote: Ticker) -> Decimal | None:
    if quote.bid is None or quote.ask is None:
        return None
    return (quote.bid + quote.ask) / 2


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
    fewer than seven other days, or where the volume is unknown. Hours before a redenomination
    count other coins: they are left out.
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
