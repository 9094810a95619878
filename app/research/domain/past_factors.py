"""Factor values of many past bars at once, by the measures of the live service.

The columns of a panel do not affect each other in these measures. Here a column is the window of
one listing up to one bar, so that one call measures many bars.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from app.market.domain.models import Floats, Ints
from app.market.domain.panel import FIELDS, Bools, Panel, ScoringInputs, forward_fill
from app.market.domain.return_statistics import MARKET, MarketModel, market_model
from app.market.domain.segments import ContiguousPanel, breaks_by_row, contiguous, log_returns
from app.scoring.domain import price_factors
from app.scoring.domain.composite import RANKED_DIGITS, Standardize
from app.scoring.domain.factors import Factor, measure, rank_rows_to_normal, rounded_significant
from app.scoring.domain.historical_moments import MIN_UNIVERSE, Moments, standardize_by_moments
from app.scoring.domain.score_stability import candle_inputs

_COLUMNS: Final = 1_024  # windows of a block, so that a field of it fits the processor's cache
_MARKET_DAYS: Final = 60  # returns of the market model
_MARKET_LEAST: Final = 45

# Measures whose columns do not affect each other. `volatility` alone reads all closes of a window.
_SHORT_BARS: Final = 91
_BY_COLUMN: Final = frozenset({
    price_factors.nearness_to_high,
    price_factors.volume_trend,
    price_factors.volume_growth,
    price_factors.efficiency,
    price_factors.range_volatility,
    price_factors.highest_return,
    price_factors.drawdown,
    price_factors.liquidity_risk,
    price_factors.volatility,
})  # fmt: skip

# Measures that compare a column with that of the market at the same bar.
_FromModel = Callable[[MarketModel], Floats]
_BY_MARKET: Final[Mapping[Callable[[ScoringInputs], Floats], _FromModel]] = MappingProxyType({
    price_factors.idiosyncratic_volatility: lambda model: model.residual_volatility,
    price_factors.btc_correlation: lambda model: model.correlation,
    price_factors.btc_beta: lambda model: model.beta,
})  # fmt: skip


def is_measured_together(factor: Factor) -> bool:
    """Tells whether `PastFactors` can measure a factor; others need a panel for each bar."""
    return factor.measure in _BY_COLUMN or factor.measure in _BY_MARKET


@dataclass(frozen=True, slots=True, eq=False)
class PastFactors:
    """Daily bars (T, N) prepared for windows of `bars` bars up to any known bar.

    A window has the bars after the last break of its listing with short gaps filled, as they were
    known at its end: `source` is the row whose bar stands in a place, -1 in a gap, and a place
    belongs to a window if its source does.
    """

    panel: Panel
    bars: int
    source: Ints
    begin: Ints  # (T, N) row of the first bar after the last break known at each row
    fields: Mapping[str, Floats]

    @staticmethod
    def of(panel: Panel, bars: int) -> "PastFactors":
        known = np.isfinite(panel.close)
        rows = np.arange(len(known))[:, None]
        filled, synthetic = forward_fill(panel)
        before = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
        fields = {name: np.ascontiguousarray(getattr(filled, name)) for name in FIELDS}
        source = np.where(known | synthetic, before, -1)
        return PastFactors(panel, bars, source, breaks_by_row(panel), fields)

    def measure(self, factors: Sequence[Factor], wanted: Bools, first: int) -> Floats:
        """Returns (K, R, N) raw values at the rows from `first` on where `wanted` (R, N).

        Every factor must satisfy `is_measured_together`. Values are those of the live measure with
        twelve significant digits; NaN where there is none, or where a listing has no bar.
        """
        chosen = wanted & np.isfinite(self.panel.close[first : first + len(wanted)])
        out = np.full((len(factors), *chosen.shape), np.nan)
        row, column = np.nonzero(chosen)
        for begin in range(0, len(row), _COLUMNS):
            part = slice(begin, begin + _COLUMNS)
            values = self._measure_block(factors, row[part] + first, column[part])
            out[:, row[part], column[part]] = values
        return out

    def _measure_block(self, factors: Sequence[Factor], row: Ints, column: Ints) -> Floats:
        """Returns (K, P) raw values of P windows."""
        names = tuple(self.panel.symbols[place] for place in column.tolist())
        whole = candle_inputs(self._windows(names, row, column, self.bars, ("close",)))
        short = candle_inputs(self._windows(names, row, column, _SHORT_BARS, FIELDS))
        model: list[MarketModel] = []

        def compute(factor: Factor, inputs: ScoringInputs) -> Floats:
            choose = _BY_MARKET.get(factor.measure)
            if choose is None:
                return factor.measure(inputs)
            if not model:
                model.append(self._market_model(inputs, row))
            return choose(model[0])

        return np.array([
            measure(one, whole if one.measure is price_factors.volatility else short,
                    compute=compute).values
            for one in factors
        ]).reshape(len(factors), len(names))  # fmt: skip

    def _windows(
        self,
        names: tuple[str, ...],
        row: Ints,
        column: Ints,
        bars: int,
        read: tuple[str, ...],
    ) -> ContiguousPanel:
        """Returns the fields `read` of the last `bars` bars up to each of P rows, as P columns.

        The other fields are unknown.
        """
        rows = row + np.arange(1 - bars, 1)[:, None]
        place = np.maximum(rows, 0) * len(self.panel.symbols) + column
        least = np.maximum(self.begin[row, column], np.maximum(row + 1 - self.bars, 0))
        belongs = (rows >= 0) & (self.source.ravel()[place] >= least)
        fields = dict.fromkeys(FIELDS, np.full(place.shape, np.nan))
        for name in read:
            fields[name] = np.where(belongs, self.fields[name].ravel()[place], np.nan)
        opened = np.arange(1 - bars, 1) * self.panel.interval.ms  # relative to the last bar
        return ContiguousPanel(self.panel.interval, names, opened, **fields)

    def _market_model(self, inputs: ScoringInputs, row: Ints) -> MarketModel:
        """Returns the model of P windows, each on the market's window up to the same row."""
        market = np.full((_MARKET_DAYS, len(row)), np.nan)
        if MARKET in self.panel.symbols:
            column = np.full(len(row), self.panel.symbols.index(MARKET))
            closes = self._windows((), row, column, _MARKET_DAYS + 1, ("close",))
            market = log_returns(closes)
        returns = log_returns(contiguous(inputs.daily), _MARKET_DAYS)
        return market_model(returns, market, _MARKET_LEAST)


def row_standard(rows: int, symbols: int) -> Standardize:
    """Returns a ranking of `rows` separate universes side by side, for `composite_scores`."""

    def standard(values: Floats, moments: Moments | None) -> Floats:
        grid = values.reshape(rows, symbols)
        few = np.isfinite(grid).sum(axis=1) < MIN_UNIVERSE
        out = rank_rows_to_normal(rounded_significant(grid, RANKED_DIGITS))
        out[few] = standardize_by_moments(grid[few], moments)
        return out.reshape(-1)

    return standard
