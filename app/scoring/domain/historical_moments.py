"""Mean and spread of factors, families and composite on earlier boards.

A rank among a few says little: below ten values it is asked how far a value lies from the mean of
earlier universes, in their standard deviations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np

from app.market.domain.models import Floats

LEAST_UNIVERSE: Final = 10  # values below which a rank says little
MOST_DAYS: Final = 30  # days of boards that are put together
_SPREAD: Final = 1e-12  # of the greatest value; less is rounding
_LIMIT: Final = 3.0  # of a z from fixed moments


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and standard deviation of a factor, family or composite in an earlier universe."""

    mean: float
    sd: float

    def __post_init__(self) -> None:
        if not self.sd > 0.0:
            raise ValueError("a standard deviation must be above zero")


@dataclass(frozen=True, slots=True)
class DayMoments(Moments):
    """Those of the last board of a day on which there were enough values to rank."""

    symbols: int  # values


@dataclass(frozen=True, slots=True)
class HistoricMoments(Moments):
    """Those of several days together; the UTC days are those of the boards that they are of."""

    symbols: int  # values of all days
    days: int
    first: date
    last: date


def observed(values: Floats) -> DayMoments | None:
    """Of one board's values (N,); None of fewer than ten, and where all are equal."""
    known = values[np.isfinite(values)]
    if len(known) < LEAST_UNIVERSE:
        return None
    sd = float(known.std())
    if not sd > _SPREAD * float(np.abs(known).max()):
        return None
    return DayMoments(float(known.mean()), sd, len(known))


def pooled(days: Sequence[tuple[date, DayMoments]]) -> HistoricMoments:
    """All values of at least one day taken as one sample, population deviation."""
    counts = np.array([one.symbols for _, one in days], np.float64)
    means = np.array([one.mean for _, one in days])
    variances = np.array([one.sd for _, one in days]) ** 2
    mean = float((counts * means).sum() / counts.sum())
    variance = float((counts * (variances + (means - mean) ** 2)).sum() / counts.sum())
    when = [day for day, _ in days]
    return HistoricMoments(
        mean, float(np.sqrt(variance)), int(counts.sum()), len(days), min(when), max(when)
    )


def historic(days: Mapping[date, Mapping[str, DayMoments]]) -> dict[str, HistoricMoments]:
    """By name, of the days on which there were enough values of it; who has none is left out."""
    named: dict[str, list[tuple[date, DayMoments]]] = {}
    for day in sorted(days):
        for name, one in days[day].items():
            named.setdefault(name, []).append((day, one))
    return {name: pooled(found) for name, found in named.items()}


def by_moments(values: Floats, moments: Moments | None) -> Floats:
    """What stands for a rank where there are too few to rank; NaN without moments."""
    if moments is None:
        return np.full(values.shape, np.nan)
    return np.clip((values - moments.mean) / moments.sd, -_LIMIT, _LIMIT)
