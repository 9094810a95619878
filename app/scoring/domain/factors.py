"""Factor table: each measured feature with its family, orientation and weight.

A new factor is one row here and one function in its family's module.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.special import ndtri

from app.configuration.domain.sections import Family, Source
from app.market.domain.models import Floats
from app.market.domain.panel import Bools, ScoringInputs, has_data, has_fresh_data
from app.market.domain.return_statistics import MARKET
from app.scoring.domain import market_factors as factors_market
from app.scoring.domain import price_factors as factors_price

_TINY = 1e-280  # below it the scale would overflow


def rounded_significant(values: Floats, digits: int = 12) -> Floats:
    """Values rounded to significant digits, so that mathematically equal values compare equal.

    Sums of the same terms in another order differ in their last bits; ranks must not.
    """
    size = np.abs(values)
    known = np.isfinite(values) & (size > _TINY)
    exponent = np.floor(np.log10(np.where(known, size, 1.0)))
    scale = 10.0 ** (digits - 1 - exponent)
    return np.where(known, np.rint(np.where(known, values, 0.0) * scale) / scale, values)


def average_ranks(values: Floats) -> Floats:
    """Rank 1..n among the finite entries, ties share the mean of their ranks; others NaN."""
    known = np.isfinite(values)
    _, place, count = np.unique(values[known], return_inverse=True, return_counts=True)
    ranks = np.full(len(values), np.nan)
    ranks[known] = (np.cumsum(count) - (count - 1) / 2.0)[place]
    return ranks


def rank_to_normal(values: Floats) -> Floats:
    """Phi^-1((rank - 0.5) / n) among the finite entries; equal values get equal z, others NaN."""
    ranks = average_ranks(values)
    return np.asarray(ndtri((ranks - 0.5) / max(int(np.isfinite(values).sum()), 1)), np.float64)


def rank_rows_to_normal(values: Floats) -> Floats:
    """Returns `rank_to_normal` of each row of (R, N) values."""
    known = np.isfinite(values)
    count = known.sum(axis=1, keepdims=True)
    ordered = np.where(known, values, np.inf)
    order = np.argsort(ordered, axis=1, kind="stable")
    ordered = np.take_along_axis(ordered, order, axis=1)
    place = np.arange(values.shape[1])
    differs = np.ones(values.shape, np.bool_)
    differs[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(differs, place, 0), axis=1)
    ends = np.ones(values.shape, np.bool_)
    ends[:, :-1] = differs[:, 1:]
    end = np.where(ends, place, values.shape[1])[:, ::-1]
    last = np.minimum.accumulate(end, axis=1)[:, ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2.0 + 1.0, axis=1)
    with np.errstate(invalid="ignore"):
        scores = ndtri((ranks - 0.5) / np.maximum(count, 1))
    return np.where(known, scores, np.nan)


IS_THE_MARKET: Final = "is_the_market"
MIN_BAR_SHARE: Final = 0.95  # minimum share of the bars since the first one
_DAILY = (Source.DAILY_CANDLES,)
_HOURLY = (Source.HOURLY_CANDLES,)
_BOOKS = (Source.BOOKS, Source.CONTRACTS)


@dataclass(frozen=True, slots=True)
class Factor:
    """One measured feature.

    `orientation` is +1 where a higher raw value is better, -1 where a lower one is. `weight` is
    the share of the family; 0 measures and shows the factor without counting it. `measure` returns
    (N,) raw values, NaN where missing; it may read its `sources` alone, because values are reused
    while candles do not change. `gap` is the reason for a missing value when all sources are
    present. A factor `against_market` compares with the market symbol, which itself has no such
    value: compared with itself it would always have the best one. `support` returns details of
    each value for explanations.
    """

    name: str
    family: Family
    orientation: int
    weight: float
    unit: str
    sources: tuple[Source, ...]
    measure: Callable[[ScoringInputs], Floats]
    gap: str
    meaning: str
    against_market: bool = False
    support: Callable[[ScoringInputs], Sequence[Mapping[str, Any] | None]] | None = None


Compute = Callable[[Factor, ScoringInputs], Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Raw values (N,) of one factor; `reasons` has the reason of each NaN."""

    factor: Factor
    values: Floats
    reasons: tuple[str | None, ...]

    @property
    def applies(self) -> Bools:
        """(N,) True where the factor can apply to the symbol, with a value or without."""
        return np.array([reason != IS_THE_MARKET for reason in self.reasons], np.bool_)


# Weights follow the evidence. Signals with a stable sign in every period carry a family, weak
# predictors count little, and factors without a stable sign count nothing.
FACTORS: Final = (
    Factor(
        "nearness_to_high", Family.TECHNICAL, +1, 0.78, "log", _DAILY,
        factors_price.nearness_to_high, "too_few_bars", "ln(close / highest close of 60 days)",
    ),
    Factor(
        "rsi_14", Family.TECHNICAL, -1, 0.08, "0..100", _HOURLY,
        factors_price.rsi_14, "too_few_bars", "Wilder's RSI of hourly closes",
    ),
    Factor(
        "macd_histogram", Family.TECHNICAL, -1, 0.06, "ATR", _HOURLY,
        factors_price.macd_histogram, "too_few_bars", "hourly MACD(12,26,9) histogram / ATR14",
    ),
    Factor(
        "bollinger_position", Family.TECHNICAL, -1, 0.08, "0..1", _HOURLY,
        factors_price.bollinger_position, "too_few_bars", "%b of hourly closes, 20 bars, 2 sd",
    ),
    Factor(  # 0: rank correlation with next week's return changes sign from year to year
        "volume_trend", Family.TECHNICAL, -1, 0.0, "log", _DAILY,
        factors_price.volume_trend, "too_few_bars", "ln(mean turnover 5 d / mean turnover 30 d)",
    ),
    Factor(  # 0: streamed for few coins so far, and no evidence yet
        "signed_volume", Family.TECHNICAL, +1, 0.0, "-1..1", (Source.TICKERS,),
        factors_market.signed_volume, "no_trade_flow",
        "(bought - sold) / both, lots of takers in the last hour of the stream",
    ),
    Factor(  # 0: likewise
        "trade_intensity", Family.TECHNICAL, +1, 0.0, "log", (Source.TICKERS,),
        factors_market.trade_intensity, "no_trade_flow",
        "ln(trades a minute in the last 10 minutes / in the last hour), streamed",
    ),
    Factor(
        "volume_growth", Family.FUNDAMENTAL, -1, 0.50, "log", _DAILY,
        factors_price.volume_growth, "too_few_bars",
        "ln(mean turnover 30 d / mean turnover of the 60 d before)",
    ),
    Factor(
        "funding_rate", Family.FUNDAMENTAL, -1, 0.40, "1/yr", (Source.FUNDING,),
        factors_market.funding_rate, "too_few_settlements",
        "settled funding of 3 days, annualised; longs pay it",
    ),
    Factor(
        "funding_stability", Family.FUNDAMENTAL, +1, 0.10, "1/yr", (Source.FUNDING,),
        factors_market.funding_stability, "too_few_settlements",
        "minus the sd of annualised funding rates over 7 days",
    ),
    Factor(  # 0: known for few coins so far, and no measured effect differs from chance
        "open_interest_change", Family.FUNDAMENTAL, -1, 0.0, "log", (Source.CONTRACTS,),
        factors_market.open_interest_change, "too_few_snapshots",
        "ln(open interest in coins / the same 7 days ago), own snapshots",
    ),
    Factor(
        "spread", Family.MARKET_STRUCTURE, -1, 0.34, "bp", (Source.TICKERS,),
        factors_market.spread, "broken_quote", "(ask - bid) / mid",
    ),
    Factor(
        "depth_25", Family.MARKET_STRUCTURE, +1, 0.33, "quote/bp", _BOOKS,
        factors_market.depth, "broken_book",
        "value per bp on the thinner side, over 25 bp of mid or what the book reaches of them",
    ),
    Factor(
        "impact", Family.MARKET_STRUCTURE, -1, 0.33, "bp", _BOOKS,
        factors_market.impact, "broken_book",
        "cost beyond half the spread of trading the notional of the settings at once; 500 where"
        " the book is thinner",
        support=factors_market.impact_support,
    ),
    Factor(  # 0: a variance ratio of 60 days spreads by .30 for a random walk, by .16 in the data
        "efficiency", Family.MARKET_STRUCTURE, +1, 0.0, "log", _DAILY,
        factors_price.efficiency, "too_few_bars", "-|ln VR(5)| of 60 daily returns",
    ),
    Factor(
        "volatility", Family.RISK, -1, 0.20, "1/yr", _DAILY,
        factors_price.volatility, "too_few_bars", "EWMA(0.94) of daily returns",
    ),
    Factor(
        "range_volatility", Family.RISK, -1, 0.10, "1/yr", _DAILY,
        factors_price.range_volatility, "too_few_bars", "Garman-Klass, 30 days",
    ),
    Factor(
        "idiosyncratic_volatility", Family.RISK, -1, 0.20, "1/yr", _DAILY,
        factors_price.idiosyncratic_volatility, "too_few_bars_or_no_market",
        "sd of what BTC leaves of 60 daily returns; BTC itself has none", against_market=True,
    ),
    Factor(
        "highest_return", Family.RISK, -1, 0.10, "log", _DAILY,
        factors_price.highest_return, "too_few_bars", "largest daily log return of 30 days",
    ),
    Factor(
        "drawdown", Family.RISK, +1, 0.10, "fraction", _DAILY,
        factors_price.drawdown, "too_few_bars", "worst fall within 90 days, negative",
    ),
    Factor(
        "btc_correlation", Family.RISK, +1, 0.20, "-1..1", _DAILY,
        factors_price.btc_correlation, "too_few_bars_or_no_market",
        "with BTC, 60 daily returns; BTC itself has none", against_market=True,
    ),
    Factor(  # 0: an exposure for the neutralised composite; its sign follows the market
        "btc_beta", Family.RISK, -1, 0.0, "1", _DAILY,
        factors_price.btc_beta, "too_few_bars_or_no_market",
        "slope on BTC of 60 daily returns; 1 for BTC itself",
    ),
    Factor(
        "liquidity_risk", Family.RISK, -1, 0.10, "log", _DAILY,
        factors_price.liquidity_risk, "too_few_bars", "ln sd of |return| / turnover, 30 days",
    ),
)  # fmt: skip


def measure(
    factor: Factor,
    inputs: ScoringInputs,
    coverage: Mapping[Source, Floats] | None = None,
    compute: Compute | None = None,
) -> Measurement:
    """Measures one factor; a value whose source is absent, too old or has gaps is missing.

    The age limit of a source is its half-life (one setting for both); an unknown age is too old.
    `coverage` is the share of present bars, (N,) by source, with `MIN_BAR_SHARE` as its minimum.
    `compute` replaces `factor.measure`. Values have twelve significant digits.
    """
    with np.errstate(all="ignore"):
        raw = factor.measure(inputs) if compute is None else compute(factor, inputs)
        values = rounded_significant(raw)
    # The market symbol has no value against itself; that reason takes precedence.
    is_market = np.array([symbol == MARKET for symbol in inputs.symbols], np.bool_)
    codes: list[str | None] = [None, IS_THE_MARKET]
    failed: list[Bools] = [is_market & factor.against_market]
    for source in factor.sources:
        codes += [f"missing_{source}", f"stale_{source}"]
        failed += [~has_data(inputs, source), ~has_fresh_data(inputs, source)]
        if coverage is not None and source in coverage:
            codes.append(f"gaps_{source}")
            failed.append(np.asarray(coverage[source] < MIN_BAR_SHARE, np.bool_))
    codes.append(factor.gap)
    failed.append(~np.isfinite(values))
    first = np.select(failed, range(1, len(codes)), default=0)
    reasons = tuple(codes[index] for index in first.tolist())
    return Measurement(factor, np.where(first == 0, values, np.nan), reasons)
