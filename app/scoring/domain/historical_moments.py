"""Mean and standard deviation of factors, families and composite on earlier boards.

A rank among few values says little. Fewer than ten values are standardized instead: distance from
the mean of earlier universes, in their standard deviations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

from app.market.domain.models import Floats

MIN_UNIVERSE: Final = 10  # minimum number of values to rank
MAX_DAYS: Final = 30  # pooled days
_SPREAD: Final = 1e-12  # of the largest absolute value; less is rounding
_LIMIT: Final = 3.0  # of a z from earlier moments


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of a factor, family or composite in an earlier universe."""

    mean: float
    sd: float

    def __post_init__(self) -> None:
        if not self.sd > 0.0:
            raise ValueError("a standard deviation must be positive")


@dataclass(frozen=True, slots=True)
class DayMoments(Moments):
    """Moments of the last board of a UTC day with enough values to rank."""

    symbols: int  # number of values


@dataclass(frozen=True, slots=True)
class HistoricMoments(Moments):
    """Pooled moments of several UTC days of boards."""

    symbols: int  # number of values of all days
    days: int
    first: date
    last: date


def compute_day_moments(values: Floats) -> DayMoments | None:
    """Moments of one board's values (N,); None for fewer than ten, or if all are equal."""
    known = values[np.isfinite(values)]
    if len(known) < MIN_UNIVERSE:
        return None
    sd = float(known.std())
    if not sd > _SPREAD * float(np.abs(known).max()):
        return None
    return DayMoments(float(known.mean()), sd, len(known))


def pool_days(days: Sequence[tuple[date, DayMoments]]) -> HistoricMoments:
    """Pools at least one day into one sample; population standard deviation."""
    counts = np.array([one.symbols for _, one in days], np.float64)
    means = np.array([one.mean for _, one in days])
    variances = np.array([one.sd for _, one in days]) ** 2
    mean = float((counts * means).sum() / counts.sum())
    variance = float((counts * (variances + (means - mean) ** 2)).sum() / counts.sum())
    dates = [day for day, _ in days]
    return HistoricMoments(
        mean, float(np.sqrt(variance)), int(counts.sum()), len(days), min(dates), max(dates)
    )


def pool_by_name(days: Mapping[date, Mapping[str, DayMoments]]) -> dict[str, HistoricMoments]:
    """Pools the days with enough values, by name; names without such a day are left out."""
    named: dict[str, list[tuple[date, DayMoments]]] = {}
    for day in sorted(days):
        for name, one in days[day].items():
            named.setdefault(name, []).append((day, one))
    return {name: pool_days(own_days) for name, own_days in named.items()}


def standardize_by_moments(values: Floats, moments: Moments | None) -> Floats:
    """z of `values` by earlier moments, limited to +-3; NaN without moments."""
    if moments is None:
        return np.full(values.shape, np.nan)
    return np.clip((values - moments.mean) / moments.sd, -_LIMIT, _LIMIT)
