"""Risk statistics along time: volatility, market model, drawdown, correlation of symbols.

(T, N) arrays in, (N,) out unless stated otherwise. NaN bars are left out; a result from fewer than
`least` observations is NaN. Volatilities are annualised fractions (365 days).
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from app.configuration.domain.model import CorrelationBasis
from app.market.domain.models import DAYS_A_YEAR, Floats, Ints
from app.market.domain.panel import Panel
from app.market.domain.segments import contiguous, log_returns

MARKET = "BTCUSDT"  # the market factor
LEAST_COMMON = 30  # common returns below which a correlation is unknown
_DECAY = 0.94  # of EWMA variance, per day
_NO_RESIDUAL = 1e-12  # share of variance below which a residual is rounding noise


class NotApplicable(StrEnum):
    """Reason why a figure does not apply, as distinct from an unknown value."""

    IS_THE_MARKET = "is_the_market"


@dataclass(frozen=True, slots=True, eq=False)
class MarketModel:
    """Regression of log returns on the market's; (N,) each, NaN where unknown."""

    beta: Floats
    correlation: Floats
    residual_volatility: Floats


def ewma_volatility(returns: Floats, least: int = 30, decay: float = _DECAY) -> Floats:
    """Returns the annualised root of s2_t = decay s2_t-1 + (1-decay) r_t^2, from the first r^2."""
    known = np.isfinite(returns)
    later = np.cumsum(known[::-1], axis=0)[::-1] - known  # returns after each one
    powers = decay ** np.arange(len(returns) + 1)
    weight = powers[later] * np.where(later == known.sum(axis=0) - 1, 1.0, 1.0 - decay)
    variance = np.where(known, weight * returns**2, 0.0).sum(axis=0)
    return _enough(np.sqrt(variance * DAYS_A_YEAR), returns, max(least, 1))


def garman_klass(open_: Floats, high: Floats, low: Floats, close: Floats, least: int) -> Floats:
    """Returns annualised range volatility: sqrt(mean(0.5 ln(H/L)^2 - (2 ln 2 - 1) ln(C/O)^2))."""
    daily = 0.5 * np.log(high / low) ** 2 - (2.0 * np.log(2.0) - 1.0) * np.log(close / open_) ** 2
    mean = _mean(daily)
    return _enough(np.sqrt(np.where(mean >= 0.0, mean, np.nan) * DAYS_A_YEAR), daily, least)


def market_model(returns: Floats, market: Floats, least: int) -> MarketModel:
    """Fits least squares on the market's returns over the rows that both have.

    `market` is (T,), or (T, N) if each column has a market of its own.

    `residual_volatility` is annualised, ddof 1. All results are unknown for a market without moves.
    """
    own, reference = _aligned(returns, market)
    shift, base = own - _mean(own), reference - _mean(reference)
    own_sum, base_sum = np.nansum(shift**2, axis=0), np.nansum(base**2, axis=0)
    product = np.nansum(shift * base, axis=0)
    beta = product / _positive(base_sum)
    correlation = np.clip(product / _positive(np.sqrt(own_sum * base_sum)), -1.0, 1.0)
    residual = _sample_sd(shift - beta * base) * np.sqrt(DAYS_A_YEAR)
    return MarketModel(
        *(_enough(figure, own, least) for figure in (beta, correlation, residual)),
    )


def highest_return(returns: Floats, least: int) -> Floats:
    """Returns MAX, the largest daily log return."""
    return _enough(np.fmax.reduce(returns), returns, least)


def worst_drawdown(close: Floats, least: int) -> Floats:
    """Returns the deepest fall from an earlier high, as a negative fraction; 0 if it never fell."""
    peak = np.fmax.accumulate(close)
    return _enough(np.fmin.reduce(close / peak - 1.0), close, least)


def variance_ratio(returns: Floats, q: int, least: int) -> Floats:
    """Returns Lo-MacKinlay VR(q) with overlapping sums and unbiased denominators.

    A column uses its unbroken returns up to the last one. NaN if they are fewer than `least` or did
    not move, or if the series has no spread.
    """
    out = np.full(returns.shape[1], np.nan)
    known = np.isfinite(returns)
    runs = np.where(known.all(axis=0), len(known), np.argmin(known[::-1], axis=0))
    for length in np.unique(runs[runs >= max(least, q + 1)]):
        columns = runs == length
        one = returns[len(returns) - length :, columns]
        mean = one.mean(axis=0)
        total = np.concatenate([np.zeros((1, one.shape[1])), np.cumsum(one, axis=0)])
        sums = total[q:] - total[:-q]
        scale = q * (length - q + 1) * (1.0 - q / length)
        long = np.sum((sums - q * mean) ** 2, axis=0) / scale
        short = np.sum((one - mean) ** 2, axis=0) / (length - 1)
        out[columns] = long / _positive(short)
    return out


def correlations(
    daily: Panel,
    symbols: tuple[str, ...],
    basis: CorrelationBasis,
    days: int,
    least: int = LEAST_COMMON,
) -> Floats:
    """Returns the correlation matrix (M, M) of `symbols` over the last `days` daily log returns.

    The residual basis uses the part of each return that the market (BTCUSDT) does not explain. The
    market has no residual: its pairs are NaN, and `pair_applies` separates them from unknown ones.
    NaN also for fewer than `least` common returns, for a symbol missing in the panel, and for one
    that only repeats the market. On the residual basis without a market everything is NaN. The
    diagonal of known symbols is 1.
    """
    place = {symbol: column for column, symbol in enumerate(daily.symbols)}
    returns = log_returns(contiguous(daily), days)
    if basis is CorrelationBasis.RESIDUAL:
        returns = _residuals(returns, place.get(MARKET))
    columns = [place.get(symbol, -1) for symbol in symbols]
    missing = np.full((len(returns), 1), np.nan)
    matrix = _pairwise(np.concatenate([returns, missing], axis=1)[:, columns], least)
    if basis is CorrelationBasis.RESIDUAL:
        market = np.array([symbol == MARKET for symbol in symbols], np.bool_)
        pairs = np.ix_(market, ~market)
        matrix[pairs] = np.nan
        matrix.T[pairs] = np.nan
    return matrix


def pair_applies(one: str, other: str, basis: CorrelationBasis) -> bool:
    """True if two symbols can be correlated at all: the market leaves no residual of itself."""
    return basis is CorrelationBasis.RAW or one == other or MARKET not in {one, other}


def _residuals(returns: Floats, market: int | None) -> Floats:
    if market is None:
        return np.full(returns.shape, np.nan)
    own, reference = _aligned(returns, returns[:, market])
    shift, base = own - _mean(own), reference - _mean(reference)
    spread = np.nansum(base**2, axis=0)
    residual = shift - np.nansum(shift * base, axis=0) / _positive(spread) * base
    left, whole = np.nansum(residual**2, axis=0), np.nansum(shift**2, axis=0)
    residual = np.where(left > _NO_RESIDUAL * whole, residual, np.nan)
    residual[:, market] = returns[:, market]
    return residual


def _pairwise(returns: Floats, least: int) -> Floats:
    """Returns Pearson correlations of every pair of columns over their common rows.

    Columns without a hole share all rows, so one product of unit vectors gives their pairs; only
    columns with holes need sums over common rows, pair by pair.
    """
    known = np.isfinite(returns)
    count = known.sum(axis=0)
    whole = count == len(returns)
    filled = np.where(known, returns - _mean(returns), 0.0)
    sums = filled.sum(axis=0)
    spread = np.where(whole, (filled**2).sum(axis=0) - sums**2 / max(len(returns), 1), 0.0)
    unit = np.nan_to_num(filled / np.sqrt(_positive(spread)))
    matrix = unit.T @ unit
    np.clip(matrix, -1.0, 1.0, out=matrix)
    unknown = ~(spread > 0.0) | (count < least)
    matrix[unknown] = np.nan
    matrix[:, unknown] = np.nan
    holes = np.flatnonzero(~whole & (count >= least))
    block = _over_common_rows(filled, known.astype(np.float64), holes, least)
    both = block[:, holes]
    block[:, holes] = (both + both.T) / 2.0  # symmetric to the last digit
    matrix[holes], matrix[:, holes] = block, block.T
    diagonal = np.einsum("ii->i", matrix)
    diagonal[np.isfinite(diagonal)] = 1.0
    return np.asarray(matrix, np.float64)


def _over_common_rows(filled: Floats, ones: Floats, columns: Ints, least: int) -> Floats:
    """Returns (K, N) correlations of some columns with all; `ones` is 1 for known returns."""
    own, seen, squared = filled[:, columns].T, ones[:, columns].T, filled**2
    count, sums, other = seen @ ones, own @ ones, seen @ filled
    covariance = count * (own @ filled) - sums * other
    own_spread = count * (squared[:, columns].T @ ones) - sums**2
    other_spread = count * (seen @ squared) - other**2
    scale = np.sqrt(np.maximum(own_spread, 0.0) * np.maximum(other_spread, 0.0))
    block = np.clip(covariance / _positive(scale), -1.0, 1.0)
    block[count < least] = np.nan
    return np.asarray(block, np.float64)


def _aligned(returns: Floats, market: Floats) -> tuple[Floats, Floats]:
    """Returns both as (T, N) with NaN wherever either is missing; `market` is (T,) or (T, N)."""
    reference = market[:, None] if market.ndim == 1 else market
    common = np.isfinite(returns) & np.isfinite(reference)
    return np.where(common, returns, np.nan), np.where(common, reference, np.nan)


def _mean(values: Floats) -> Floats:
    count = np.isfinite(values).sum(axis=0)
    return np.asarray(np.nansum(values, axis=0) / _positive(count.astype(np.float64)), np.float64)


def _sample_sd(values: Floats) -> Floats:
    count = np.isfinite(values).sum(axis=0).astype(np.float64)
    spread = np.nansum((values - _mean(values)) ** 2, axis=0)
    return np.asarray(np.sqrt(spread / _positive(count - 1.0)), np.float64)


def _positive(values: Floats) -> Floats:
    """Returns the values as divisors: NaN where they are not above zero."""
    return np.where(values > 0.0, values, np.nan)


def _enough(figure: Floats, observed: Floats, least: int) -> Floats:
    return np.where(np.isfinite(observed).sum(axis=0) >= least, figure, np.nan)
