"""Reliability of scores: stability of the composite on past days, recomputed from candles alone.

Reliability = s2_between / (s2_between + s2_noise). The noise of a symbol is half the variance of
its daily changes over the last 30 days; s2_between is the variance between symbols on the newest
day. Quotes, books and funding of past days are not stored, so their factors are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from app.configuration.domain.sections import Family, FeedSettings, Source
from app.foundation.decimal_math import to_millionths
from app.market.domain.models import CandleSeries, Floats, Interval
from app.market.domain.panel import Bools, Panel, ScoringInputs, forward_fill, truncate
from app.market.domain.segments import contiguous, log_returns, newest
from app.scoring.domain.composite import AlgorithmSpec, composite_scores
from app.scoring.domain.factors import Factor, measure
from app.scoring.domain.historical_moments import MIN_UNIVERSE

DAYS: Final = 30
NOISE_DAYS: Final = 7
_MIN_CHANGES: Final = 10  # minimum number of changes to estimate a variance


# (raw values, whether a factor applies), each (F, N), of one past day.
DayMeasurements = tuple[Floats, Bools]


def back_measurements(
    daily: Panel, factors: Sequence[Factor], days: int = DAYS
) -> tuple[DayMeasurements, ...]:
    """Measures of factors of daily candles at the close of each of the last days, newest first.

    Each day uses its own past only: later bars are cut off before gaps are filled, because filling
    needs the bar after the gap.
    """
    whole = contiguous(daily)
    found: list[DayMeasurements] = []
    for back in range(min(days, len(daily.opened_ms) - 2) + 1):  # a return needs two bars
        past = candle_inputs(forward_fill(truncate(whole, len(whole.opened_ms) - back))[0])
        measured = [measure(factor, past) for factor in factors]
        raw = np.array([one.values for one in measured])
        found.append((raw, np.array([one.applies for one in measured])))
    return tuple(found)


# As `back_measurements`, which it may cache: most changes of an algorithm change weights alone.
Measure = Callable[[Panel, Sequence[Factor], int], tuple[DayMeasurements, ...]]


def back_scores(
    daily: Panel,
    spec: AlgorithmSpec,
    days: int = DAYS,
    measurements: Measure = back_measurements,
) -> Floats:
    """(days + 1, N) composite z at the close of each of the last days, oldest first.

    NaN where a symbol had no score, and on days before the last break of its history.
    """
    candles = daily_candle_part(spec)
    scores = np.full((days + 1, len(daily.symbols)), np.nan)
    if candles is None or len(daily.symbols) < MIN_UNIVERSE:
        return scores
    for back, (raw, applies) in enumerate(measurements(daily, candles.factors, days)):
        scores[days - back] = composite_scores(raw, candles, applies=applies).z
    return scores


def reliability(daily: Panel, spec: AlgorithmSpec, days: int = DAYS) -> Floats:
    """(N,) in 0..1; NaN with fewer than ten daily changes, or without variance between symbols."""
    return reliability_from_scores(back_scores(daily, spec, days))


def reliability_from_scores(scores: Floats) -> Floats:
    """(N,) reliability, as `reliability`, from back scores (days + 1, N)."""
    noise = _variance_of_changes(scores, 1) / 2.0
    newest = scores[-1][np.isfinite(scores[-1])]
    between = float(newest.var()) if len(newest) else 0.0
    return between / (between + noise) if between > 0.0 else np.full(len(noise), np.nan)


def weekly_noise(scores: Floats) -> Floats:
    """(N,) noise of the composite z over a week: sd of its 7-day changes over the root of two.

    NaN with fewer than ten such changes.
    """
    if len(scores) <= NOISE_DAYS:
        return np.full(scores.shape[1], np.nan)
    return np.asarray(np.sqrt(_variance_of_changes(scores, NOISE_DAYS) / 2.0), np.float64)


def _variance_of_changes(scores: Floats, days: int) -> Floats:
    """(N,) sample variance of the changes over `days` days; NaN with fewer than ten."""
    changes = scores[days:] - scores[:-days]
    count = np.isfinite(changes).sum(axis=0)
    enough = np.where(count >= _MIN_CHANGES, count, np.nan)
    mean = np.nansum(changes, axis=0) / enough
    return np.asarray(np.nansum((changes - mean) ** 2, axis=0) / (enough - 1.0), np.float64)


def daily_candle_part(spec: AlgorithmSpec) -> AlgorithmSpec | None:
    """Returns the part of an algorithm that uses daily candles alone; None if it has no weight."""
    factors = tuple(one for one in spec.factors if one.sources == (Source.DAILY_CANDLES,))
    weighted = {one.family for one in factors if one.weight > 0.0}
    total = sum(weight for family, weight in spec.weights.items() if family in weighted)
    if not total > 0.0:
        return None
    weights = {
        family: spec.weights[family] / total if family in weighted else 0.0 for family in Family
    }
    # Moments belong to the sums of the whole algorithm, not to those of a part.
    return replace(spec, factors=factors, weights=weights, moments={})


def candle_inputs(daily: Panel) -> ScoringInputs:
    """Returns scoring inputs with daily candles alone, as known at the close of the last bar."""
    count = len(daily.symbols)
    unknown = np.full(count, np.nan)
    return ScoringInputs(
        symbols=daily.symbols,
        as_of_ms=int(daily.opened_ms[-1]) + daily.interval.ms,
        daily=daily,
        hourly=truncate(daily, 0),
        bid=unknown,
        ask=unknown,
        multiplier=unknown,
        books=(None,) * count,
        funding=((),) * count,
        open_interest_ms=np.empty(0, dtype=np.int64),
        open_interest=np.empty((0, count)),
        ages_s={source: np.zeros(count) for source in Source},
        half_lives_s=dict.fromkeys(Source, 1.0),
        excluded={},
    )


HOURS = 24
_BP = 10_000.0


def hourly_volatility(hourly: CandleSeries) -> float | None:
    """Standard deviation of the last day's hourly log returns; None with fewer bars or no move."""
    returns = log_returns(newest(hourly, Interval.HOUR, HOURS + 1))
    if not np.isfinite(returns).all():
        return None
    deviation = float(returns.std(ddof=1))
    return deviation if deviation > 0 else None


def has_moved(before: float, now: float, volatility: float | None, rules: FeedSettings) -> bool:
    """True if the price change exceeds one of the configured limits.

    Without a volatility only the limit in basis points applies.
    """
    if before <= 0 or now <= 0:
        return False
    move = abs(float(np.log(now / before)))
    if 0 < to_millionths(rules.rescore_move_bp) <= to_millionths(move * _BP):
        return True
    if volatility is None:
        return False
    return 0 < to_millionths(rules.rescore_move_volatilities) <= to_millionths(move / volatility)
