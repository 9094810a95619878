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
    RANK_ROWS,
    RSI,
    initial_state,
    macd_in_ranges,
    normal_scores,
)
from app.scoring.domain.composite import AlgorithmSpec, Standardize, composite_scores
from app.scoring.domain.historical_moments import MIN_UNIVERSE, Moments, standardize_by_moments
from app.scoring.domain.price_factors import HOURLY_BARS

_ROWS: Final = 64  # rows per block, so that the results fit the processor's second-level cache

# Factors that depend on hourly bars alone, from (4, R, N) indicators of the kernel.
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
    min_bars: int = HOURLY_BARS,
) -> Floats:
    """Computes composite z (T, N) of hourly bars (T, N), before shrinking; NaN without a bar.

    A symbol is ranked from its bar number `min_bars` on. Every factor of `spec` must be in
    `MEASURES`. Later bars never change earlier rows.
    """
    (rows, symbols), contiguous = close.shape, np.ascontiguousarray
    out = np.empty(close.shape)
    indicators = np.empty((INDICATORS, min(_ROWS, rows), symbols))
    state, bars = initial_state(symbols), np.zeros(symbols, np.int64)
    for first in range(0, rows, _ROWS):
        block = slice(first, min(first + _ROWS, rows))
        block_rows = block.stop - first
        if block_rows < indicators.shape[1]:
            indicators = np.empty((INDICATORS, block_rows, symbols))
        fields = [contiguous(values[block]) for values in (high, low, close, volume)]
        ADD_BARS(state, fields[0], fields[1], fields[2], fields[3], indicators)
        counted = bars + np.cumsum(np.isfinite(close[block]), axis=0)
        bars = counted[-1]
        raw = np.array([MEASURES[factor.name](indicators) for factor in spec.factors])
        raw[:, counted < min_bars] = np.nan
        z = composite_scores(raw.reshape(len(raw), -1), spec, _row_ranking(block_rows, symbols)).z
        out[block] = z.reshape(block_rows, symbols)
    return out


def _row_ranking(rows: int, symbols: int) -> Standardize:
    """Returns a ranking of `rows` separate universes, for `composite_scores`."""

    def standard(values: Floats, moments: Moments | None) -> Floats:
        grid = values.reshape(rows, symbols)
        out = np.empty(grid.shape)
        RANK_ROWS(grid, normal_scores(symbols), out)
        few = np.isfinite(grid).sum(axis=1) < MIN_UNIVERSE
        out[few] = standardize_by_moments(grid[few], moments)
        return out.reshape(-1)

    return standard
