"""Validation of scores: rank information coefficients, quantile spreads, decay and turnover.

Arrays are (T, N): one row per bar, one column per contract, NaN where missing. A score of row t is
known at the close of bar t; its return begins at the open of bar t + 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.market.domain.models import Floats, Ints
from app.market.domain.panel import Bools
from app.scoring.domain.factors import average_ranks

MIN_NAMES: Final = 15  # fewer names give no rank correlation
QUANTILES: Final = 5
LEAST_LAG: Final = 5  # of Newey and West
DECAY_STARTS: Final = (0, 1, 2, 3, 7, 14, 28, 56)
AUTOCORRELATION_LAGS: Final = (1, 7, 28)


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """Mean of a series with its Newey-West t statistic; None without enough values."""

    mean: float | None
    t: float | None
    count: int
    error: float | None = None  # standard error of the mean by Newey and West


@dataclass(frozen=True, slots=True, eq=False)
class ScoreEvidence:
    """Evidence about one score over one period and horizon; None is unknown."""

    horizon: int  # bars
    ic: MeanEstimate
    icir: float | None  # mean IC / its standard deviation
    hit_rate: float | None  # share of ICs above 0
    spread: MeanEstimate  # top minus bottom quantile, return per bar
    top_excess: MeanEstimate  # top quantile minus universe, return per bar
    quantile_means: tuple[float, ...]  # return per bar, lowest score first
    monotonicity: float | None  # rank correlation of quantile and mean return
    decay: tuple[tuple[int, float], ...]  # start in bars, mean IC
    autocorrelation: tuple[tuple[int, float], ...]  # lag in bars, mean rank correlation
    turnover: float | None  # share of the top quantile that leaves, per horizon
    coverage: float | None  # share of names with a return that have a score
    ic_series: Floats  # (T,)


def forward_returns(opened: Floats, close: Floats, horizon: int, start: int = 0) -> Floats:
    """Returns (T, N) returns from the open of bar t + 1 + start over `horizon` bars.

    A contract that ends within the window realises its last close. NaN without an open at the
    begin, with a gap at the end, and where the window passes the last row.
    """
    rows, _ = opened.shape
    out = np.full(opened.shape, np.nan)
    first = 1 + start
    if rows <= first + horizon:
        return out
    begin = opened[first : rows - horizon]
    end = opened[first + horizon :]
    last_row, last_close = _last_bar(close)
    at = np.arange(first + horizon, rows)[:, None]
    end = np.where(np.isnan(end) & (at > last_row), last_close, end)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(begin > 0.0, end / begin - 1.0, np.nan)
    out[: len(found)] = found
    return out


def _last_bar(close: Floats) -> tuple[Ints, Floats]:
    """Returns (N,) row and close of the last bar; row -1 and NaN without any."""
    known = np.isfinite(close)
    rows = len(close) - 1 - np.argmax(known[::-1], axis=0)
    rows = np.where(known.any(axis=0), rows, -1)
    return rows, np.where(rows >= 0, close[rows, np.arange(close.shape[1])], np.nan)


def rank_correlations(one: Floats, other: Floats, least: int = MIN_NAMES) -> Floats:
    """Returns (T,) Spearman correlations of rows; NaN with fewer than `least` common names.

    Ties take their mean rank, as in scipy.stats.spearmanr.
    """
    out = np.full(len(one), np.nan)
    both = np.isfinite(one) & np.isfinite(other)
    for row in np.flatnonzero(both.sum(axis=1) >= least):
        names = both[row]
        ranks = [average_ranks(values[row, names]) for values in (one, other)]
        left, right = (each - each.mean() for each in ranks)
        scale = math.sqrt(float((left * left).sum() * (right * right).sum()))
        if scale > 0.0:
            out[row] = float((left * right).sum()) / scale
    return out


def newey_west(values: Floats, lag: int) -> MeanEstimate:
    """Returns the mean of the finite values with its t statistic.

    Bartlett weights over `lag` autocovariances, each divided by the count: equal to a regression
    of statsmodels on a constant with HAC errors and without the small-sample correction.
    """
    known = values[np.isfinite(values)]
    count = len(known)
    if count == 0:
        return MeanEstimate(None, None, 0)
    mean = float(known.mean())
    if count <= lag + 1:
        return MeanEstimate(mean, None, count)
    away = known - mean
    variance = float((away * away).sum()) / count
    for step in range(1, lag + 1):
        covariance = float((away[step:] * away[:-step]).sum()) / count
        variance += 2.0 * (1.0 - step / (lag + 1)) * covariance
    error = math.sqrt(variance / count) if variance > 0.0 else 0.0
    if error == 0.0:
        return MeanEstimate(mean, None, count)
    return MeanEstimate(mean, mean / error, count, error)


def quantile_of(scores: Floats, quantiles: int = QUANTILES, least: int = MIN_NAMES) -> Ints:
    """Returns (T, N) quantiles from 0 (lowest scores); -1 for a missing score or a short row.

    Quantiles differ by one name at most; equal scores go by column.
    """
    out = np.full(scores.shape, -1, np.int64)
    known = np.isfinite(scores)
    for row in np.flatnonzero(known.sum(axis=1) >= least):
        names = np.flatnonzero(known[row])
        order = names[np.argsort(scores[row, names], kind="stable")]
        out[row, order] = np.arange(len(order)) * quantiles // len(order)
    return out


def evaluate_scores(
    scores: Floats,
    opened: Floats,
    close: Floats,
    horizon: int,
    universe: Bools | None = None,
    step: int = 1,
    decay: Sequence[int] = DECAY_STARTS,
) -> ScoreEvidence:
    """Evaluates scores of every `step`-th row against the returns of `horizon` bars.

    NaN scores are left out. Overlapping windows enter the t statistics by their lag. `universe`
    (T, N) are the names that could have a score; all by default.
    """
    chosen = np.arange(0, len(scores), step)
    returns = forward_returns(opened, close, horizon)[chosen]
    if universe is not None:
        returns = np.where(universe[chosen], returns, np.nan)
    own = scores[chosen]
    lag = max(-(-horizon // step), LEAST_LAG)
    ics = rank_correlations(own, returns)
    series = np.full(len(scores), np.nan)
    series[chosen] = ics
    known = ics[np.isfinite(ics)]
    deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    ic = newey_west(ics, lag)
    paired = np.where(np.isfinite(returns), own, np.nan)
    groups = quantile_of(paired)
    by_group = np.array([_row_means(returns, groups == one) for one in range(QUANTILES)]) / horizon
    everyone = _row_means(returns, groups >= 0) / horizon
    means = tuple(float(np.nanmean(row)) for row in by_group if np.isfinite(row).any())
    is_whole = len(means) == QUANTILES
    order = np.arange(QUANTILES, dtype=np.float64)[None, :]
    monotony = rank_correlations(order, np.array([means]), 2)[0] if is_whole else math.nan
    has_return = np.isfinite(returns)
    return ScoreEvidence(
        horizon,
        ic,
        None if ic.mean is None or deviation == 0.0 else ic.mean / deviation,
        float((known > 0.0).mean()) if len(known) else None,
        newey_west(by_group[-1] - by_group[0], lag),
        newey_west(by_group[-1] - everyone, lag),
        means if is_whole else (),
        float(monotony) if math.isfinite(monotony) else None,
        tuple(_decay(own, opened, close, horizon, chosen, decay)),
        tuple(_autocorrelation(scores)),
        _turnover(scores, max(horizon, 1)),
        float((has_return & np.isfinite(own)).sum() / has_return.sum())
        if has_return.any()
        else None,
        series,
    )


def _row_means(values: Floats, chosen: Bools) -> Floats:
    """Returns (T,) means of the chosen finite values of each row; NaN without any."""
    counted = chosen & np.isfinite(values)
    count = counted.sum(axis=1)
    total = np.where(counted, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _decay(
    own: Floats,
    opened: Floats,
    close: Floats,
    horizon: int,
    chosen: Ints,
    starts: Sequence[int],
) -> list[tuple[int, float]]:
    found = []
    for start in starts:
        ics = rank_correlations(own, forward_returns(opened, close, horizon, start)[chosen])
        if np.isfinite(ics).any():
            found.append((start, float(np.nanmean(ics))))
    return found


def _autocorrelation(scores: Floats) -> list[tuple[int, float]]:
    found = []
    for lag in AUTOCORRELATION_LAGS:
        ics = rank_correlations(scores[:-lag], scores[lag:]) if len(scores) > lag else np.empty(0)
        if np.isfinite(ics).any():
            found.append((lag, float(np.nanmean(ics))))
    return found


def _turnover(scores: Floats, every: int) -> float | None:
    """Returns the mean share of the top quantile that is no longer in it `every` bars later."""
    top = quantile_of(scores) == QUANTILES - 1
    shares = [
        1.0 - float((top[row] & top[row + every]).sum()) / float(top[row].sum())
        for row in range(0, len(top) - every, every)
        if top[row].any() and top[row + every].any()
    ]
    return float(np.mean(shares)) if shares else None
