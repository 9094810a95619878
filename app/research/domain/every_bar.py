"""The composite of hourly factors at every bar of a history, by the functions that score live."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from app.market.domain.models import Floats
from app.research.domain.rank_kernel import RANKED_ROWS, normal_scores
from app.scoring.domain.composite import AlgorithmSpec, Standard, standings
from app.scoring.domain.historical_moments import LEAST_UNIVERSE, Moments, by_moments
from app.scoring.domain.kernels import indicators
from app.scoring.domain.kernels.indicators import INDICATORS, TAKE, fresh_state
from app.scoring.domain.kernels.last_bar import histogram_in_ranges
from app.scoring.domain.price_factors import HOURLY_BARS

_ROWS: Final = 64  # at a time: what they give stays in the processor's second cache

# The factors that a history of hourly bars alone can tell, from (9, R, N) of the kernel.
MEASURES: Final[Mapping[str, Callable[[Floats], Floats]]] = MappingProxyType({
    "rsi_14": lambda told: told[indicators.RSI],
    "macd_histogram": histogram_in_ranges,
    "bollinger_position": lambda told: told[indicators.BAND_POSITION],
})  # fmt: skip


def composite_at_every_bar(
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    returns: Floats,
    spec: AlgorithmSpec,
    least: int = HOURLY_BARS,
) -> Floats:
    """Composite z of (T, N) hourly bars, (T, N), before shrinking; NaN in rows without a bar.

    `returns` are ln(c_t / c_t-1); a symbol counts from its bar number `least` on. Every factor of
    `spec` must be one of MEASURES. Later bars change nothing.
    """
    (rows, symbols), whole = close.shape, np.ascontiguousarray
    out = np.empty(close.shape)
    told = np.empty((INDICATORS, min(_ROWS, rows), symbols))
    state, bars = fresh_state(symbols), np.zeros(symbols, np.int64)
    for first in range(0, rows, _ROWS):
        here = slice(first, min(first + _ROWS, rows))
        many = here.stop - first
        if many < told.shape[1]:
            told = np.empty((INDICATORS, many, symbols))
        TAKE(
            state, whole(high[here]), whole(low[here]), whole(close[here]), whole(volume[here]),
            whole(returns[here]), told, True,
        )  # fmt: skip
        counted = bars + np.cumsum(np.isfinite(close[here]), axis=0)
        bars = counted[-1]
        raw = np.array([MEASURES[factor.name](told) for factor in spec.factors])
        raw[:, counted < least] = np.nan
        z = standings(raw.reshape(len(raw), -1), spec, _of_rows(many, symbols)).z
        out[here] = z.reshape(many, symbols)
    return out


def _of_rows(rows: int, symbols: int) -> Standard:
    """Ranks each of `rows` universes for itself, as `standings` ranks a single one."""

    def standard(values: Floats, moments: Moments | None) -> Floats:
        grid = values.reshape(rows, symbols)
        out = np.empty(grid.shape)
        RANKED_ROWS(grid, normal_scores(symbols), out)
        few = np.isfinite(grid).sum(axis=1) < LEAST_UNIVERSE
        out[few] = by_moments(grid[few], moments)
        return out.reshape(-1)

    return standard
