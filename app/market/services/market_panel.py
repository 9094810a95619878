"""What a scoring looks at as arrays: bars as one panel that ends where most do, ages, numbers."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import numpy as np

from app.market.domain.models import CandleSeries, Floats, Interval
from app.market.domain.panel import Panel, Source

_QUORUM: Final = 0.5  # of the symbols must have a bar before a panel ends with it


def agreed_panel(
    series: Mapping[str, CandleSeries],
    symbols: tuple[str, ...] | None,
    interval: Interval,
    closed_ms: int,
    bars: int,
) -> Panel:
    """The last `bars` that closed by `closed_ms` of `symbols`, or of all by name without them.

    It ends with the newest bar that at least half of them have.
    """
    names = tuple(sorted(series)) if symbols is None else symbols
    last = [int(series[name].opened_ms[-1]) for name in names if len(series.get(name, ()))]
    if last:
        agreed_ms = int(np.quantile(last, _QUORUM, method="lower")) + interval.ms
        closed_ms = min(closed_ms, agreed_ms)
    return Panel.of(series, names, interval, closed_ms, bars)


def as_float(value: Decimal | None) -> float:
    """NaN where it is not known."""
    return np.nan if value is None else float(value)


def age_column(ages: Sequence[Mapping[Source, float | None]], source: Source) -> Floats:
    """(N,) ages in seconds of one source; NaN where there never was a value."""
    known = (one[source] for one in ages)
    return np.array([np.nan if age is None else age for age in known], dtype=np.float64)
