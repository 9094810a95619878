"""Composite score of hourly factors at every bar of a history."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from app.market.domain.models import Floats
from app.research.domain.kernels import (
    ADD_BARS,
    BAND_POSITION,
    INDICATORS,
    RANKED_ROWS,
    RSI,
    initial_state,
    macd_in_ranges,
    normal_scores,
)
from app.scoring.domain.composite import AlgorithmSpec, Standard, composite_scores
from app.scoring.domain.historical_moments import LEAST_UNIVERSE, Moments, by_moments
from app.scoring.domain.price_factors import HOURLY_BARS

_ROWS: Final = 64  # at a time: what they give stays in the processor's second cache

# Factors that a history of hourly bars alone determines, from (4, R, N) of the kernel.
MEASURES: Final[Mapping[str, Callable[[Floats], Floats]]] = MappingProxyType({
    "rsi_14": lambda indicators: indicators[RSI],
    "macd_histogram": macd_in_ranges,
    "bollinger_position": lambda indicators: indicators[BAND_POSITION],
})  # fmt: skip


def composite_at_every_bar(
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    spec: AlgorithmSpec,
    least: int = HOURLY_BARS,
) -> Floats:
    """Composite z of (T, N) hourly bars, (T, N), before shrinking; NaN in rows without a bar.

    A symbol counts from its bar number `least` on. Every factor of `spec` must be one of MEASURES.
    Later bars change nothing.
    """
    (rows, symbols), whole = close.shape, np.ascontiguousarray
    out = np.empty(close.shape)
    indicators = np.empty((INDICATORS, min(_ROWS, rows), symbols))
    state, bars = initial_state(symbols), np.zeros(symbols, np.int64)
    for first in range(0, rows, _ROWS):
        here = slice(first, min(first + _ROWS, rows))
        many = here.stop - first
        if many < indicators.shape[1]:
            indicators = np.empty((INDICATORS, many, symbols))
        ADD_BARS(
            state, whole(high[here]), whole(low[here]), whole(close[here]), whole(volume[here]),
            indicators,
        )  # fmt: skip
        counted = bars + np.cumsum(np.isfinite(close[here]), axis=0)
        bars = counted[-1]
        raw = np.array([MEASURES[factor.name](indicators) for factor in spec.factors])
        raw[:, counted < least] = np.nan
        z = composite_scores(raw.reshape(len(raw), -1), spec, _of_rows(many, symbols)).z
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
