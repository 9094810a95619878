"""Risk of the members: volatility, value at risk, expected shortfall and their backtests.

The VaR horizon is one day; losses are positive fractions. Source: QUANT section 9.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import numpy as np
from scipy.special import chdtrc, ndtri, xlogy

from app.foundation.decimal_math import ONE, to_millionths
from app.market.domain.models import DAYS_A_YEAR, Floats
from app.market.domain.panel import Panel, simple_returns, unbroken
from app.market.domain.return_statistics import MARKET
from app.portfolio.domain.returns import Figures, compute_figures

LEAST_RETURNS: Final = 30  # returns below which a tail is not spoken of
_SEED: Final = 30  # returns that start the variance of the filter; their own are not used
_DECAY: Final = 0.94
_FAR: Final = -4.0  # of a normal variable: one day in thirty thousand


class Method(StrEnum):
    """How the tail is taken."""

    HISTORICAL = "historical"
    CORNISH_FISHER = "cornish_fisher"  # normal, bent by skewness and kurtosis
    EWMA = "ewma"  # normal, with the variance of today
    FILTERED = "filtered_historical"  # past surprises, scaled to the variance of today


def var_cvar(
    returns: Floats, level: float, method: Method = Method.FILTERED
) -> tuple[float | None, float | None]:
    """Loss exceeded on a share 1 - level of the days, and the mean loss on those days.

    Daily simple returns (T,), NaN left out; level such as 0.95. (None, None) below 30 usable
    returns; the filter spends 30 more on its start. Quantiles are linear; the shortfall is the
    mean of the k+1 lowest, k = int((T-1)(1-level)). Raises ValueError for a level not in (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError("a level lies between 0 and 1")
    known = returns[np.isfinite(returns)]
    share = round(1.0 - level, 12)  # 1 - 0.9 is a hair below a tenth
    if method is Method.EWMA:
        return _normal(known, share)
    if method is Method.CORNISH_FISHER:
        return _bent(known, share)
    if method is Method.HISTORICAL:
        return _tail(known, share)
    if len(known) < _SEED + LEAST_RETURNS:
        return None, None
    variances = _variances(known)
    sigma = np.sqrt(variances)
    # Days whose variance is nil say nothing of how large a surprise they were.
    surprises = known[_SEED:][sigma[:-1] > 0.0] / sigma[:-1][sigma[:-1] > 0.0]
    return _tail(surprises, share, float(sigma[-1]))


def run_kupiec_test(
    exceptions: int, observations: int, share: float
) -> tuple[float | None, float | None]:
    """Likelihood ratio and p-value of `exceptions` days beyond a VaR that should have `share`.

    Chi-squared with one degree of freedom; (None, None) without observations. Raises ValueError
    for counts or a share that cannot be.
    """
    if not 0 <= exceptions <= observations or not 0.0 < share < 1.0:
        raise ValueError("exceptions are among the observations, the share between 0 and 1")
    if observations == 0:
        return None, None
    quiet, seen = observations - exceptions, exceptions / observations
    expected = xlogy(quiet, 1.0 - share) + xlogy(exceptions, share)
    observed = xlogy(quiet, 1.0 - seen) + xlogy(exceptions, seen)
    ratio = max(0.0, float(-2.0 * (expected - observed)))
    return ratio, float(chdtrc(1.0, ratio))


def count_exceptions(returns: Floats, level: float, window: int, method: Method) -> tuple[int, int]:
    """Days whose loss was beyond the VaR of the `window` returns before, and the days judged.

    Every VaR sees only returns before its day; NaN returns are left out beforehand.
    """
    known = returns[np.isfinite(returns)]
    if method is Method.FILTERED:
        losses = _filtered_before(known, round(1.0 - level, 12), window)
        if losses is not None:
            return int((-known[window:] > losses).sum()), len(losses)
    beyond = judged = 0
    for day in range(window, len(known)):
        var, _ = var_cvar(known[day - window : day], level, method)
        if var is not None:
            judged += 1
            beyond += bool(-known[day] > var)
    return beyond, judged


def _filtered_before(known: Floats, share: float, window: int) -> Floats | None:
    """The filtered VaR of every day after the first `window`, all at once, as `var_cvar` has it.

    None where there is none for each of them: windows too short, or a variance of nil.
    """
    if window < _SEED + LEAST_RETURNS or len(known) <= window:
        return None
    before = np.lib.stride_tricks.sliding_window_view(known, window)[:-1]
    variance = np.mean(before[:, :_SEED] ** 2, axis=1)
    surprises = np.empty((len(before), window - _SEED))
    for day in range(_SEED, window):
        if not variance.all():
            return None
        surprises[:, day - _SEED] = before[:, day] / np.sqrt(variance)
        variance = _DECAY * variance + (1.0 - _DECAY) * before[:, day] ** 2
    return np.asarray(-np.quantile(surprises, share, axis=1) * np.sqrt(variance))


def _tail(
    values: Floats, share: float, scale: float = 1.0
) -> tuple[float, float] | tuple[None, None]:
    if len(values) < LEAST_RETURNS:
        return None, None
    lowest = np.sort(values)[: (len(values) - 1) * to_millionths(share) // ONE + 1]
    return -float(np.quantile(values, share)) * scale, -float(lowest.mean()) * scale


def _normal(values: Floats, share: float) -> tuple[float, float] | tuple[None, None]:
    if len(values) < LEAST_RETURNS:
        return None, None
    sigma, z = math.sqrt(float(_variances(values)[-1])), float(ndtri(share))
    density = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)
    return -z * sigma, density / share * sigma


def _bent(values: Floats, share: float) -> tuple[float, float] | tuple[None, None]:
    """Quantile and mean of the tail with the sample's skewness and excess kurtosis.

    (None, None) where the expansion is no quantile function, which it is for small ones only: it
    must rise from a day in thirty thousand to the quantile, or a rarer day would lose less.
    """
    mean, sd = (
        (float(values.mean()), float(values.std())) if len(values) >= LEAST_RETURNS else (0.0, 0.0)
    )
    if not sd > 0.0:
        return None, None
    skew = float(np.mean(((values - mean) / sd) ** 3))
    excess = float(np.mean(((values - mean) / sd) ** 4)) - 3.0
    z = float(ndtri(share))
    a, b, c = excess / 8.0 - skew**2 / 6.0, skew / 3.0, 1.0 - excess / 8.0 + 5.0 * skew**2 / 36.0
    # The slope is lowest at an end, or where a parabola that opens upwards turns.
    turn = min(max(-b / (2.0 * a), _FAR), z) if a > 0.0 else z
    if min((a * at + b) * at + c for at in (_FAR, turn, z)) <= 0.0:
        return None, None
    hazard = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi) / share

    def bent(first: float, second: float, third: float) -> float:
        moved = first + (second - 1.0) * skew / 6.0 + (third - 3.0 * first) * excess / 24.0
        return mean + sd * (moved - (2.0 * third - 5.0 * first) * skew**2 / 36.0)

    # The moments of a normal variable below z give the mean of the expansion below its quantile.
    return -bent(z, z * z, z**3), -bent(-hazard, 1.0 - z * hazard, -(z * z + 2.0) * hazard)


def _variances(returns: Floats) -> Floats:
    """Variance foreseen for each day after the seed, and for the day after the last; mean 0."""
    variance = float(np.mean(returns[:_SEED] ** 2))
    out = [variance]
    for one in returns[_SEED:]:
        variance = _DECAY * variance + (1.0 - _DECAY) * float(one) ** 2
        out.append(variance)
    return np.array(out)


LEAST_DAYS: Final = 30  # common days below which no risk is spoken of
LEVELS: Final = (0.95, 0.99)
WINDOW: Final = 90  # returns that the VaR of a day in the past is taken from
_SIGNIFICANT: Final = 0.05


@dataclass(frozen=True, slots=True)
class TailRisk:
    """One-day loss as a positive fraction of equity; None where not defined."""

    level: float
    var: float | None
    cvar: float | None
    backtest: "TailBacktest | None" = None  # None without a day that could be judged


@dataclass(frozen=True, slots=True)
class TailBacktest:
    """How often the VaR of the days before a day was exceeded on it; no day is proxied.

    Kupiec: the p-value is how likely as wrong a count is where the VaR is right.
    """

    window: int  # days that each VaR was taken from
    days: int  # that were judged
    exceptions: int
    expected: float
    likelihood_ratio: float | None
    p_value: float | None

    @property
    def is_rejected(self) -> bool | None:
        """Whether the VaR is wrong, at 5 %."""
        if self.p_value is None:
            return None
        return to_millionths(self.p_value) < to_millionths(_SIGNIFICANT)


@dataclass(frozen=True, slots=True)
class Risk:
    """None where not defined; `reason` says why.

    The tails alone rest on more than the common days: `proxied` holds the days by symbol on which
    a young member's return was put together from the market's.
    """

    observations: int  # common days
    volatility: float | None  # annualised
    beta: float | None  # to BTC
    contributions: Mapping[str, float]  # shares of the variance by symbol, adding up to 1
    tails: tuple[TailRisk, ...]
    hypothetical: Figures  # of these weights over the past: not earned
    reason: str | None
    proxied: Mapping[str, int] = field(default_factory=dict)


def compute_risk(daily: Panel | None, weights: Mapping[str, float]) -> Risk:
    """Of `weights` (fractions of equity by symbol; the rest is cash), filtered historical tails.

    A day counts only if every symbol has a return on it: no gap is filled in. For the tails the
    days before a young member's first are proxied.
    """
    held = {symbol: weight for symbol, weight in weights.items() if weight > 0.0}
    if not held:
        return _unknown("nothing is held")
    missing = _missing(daily, held)
    if daily is None or missing is not None:
        return _unknown(f"{missing} has no daily candles")
    own, market = _returns(daily, held)
    whole, shares = np.isfinite(own).all(axis=1), np.array(list(held.values()))
    longer, proxied = _proxied(own, market, tuple(held))
    own, market = own[whole], market[whole]
    total = own @ shares
    tails = _tails(longer @ shares, total)
    if len(total) < LEAST_DAYS:
        why = f"{len(total)} common days, {LEAST_DAYS} are needed"
        return replace(_unknown(why, compute_figures(total)), tails=tails, proxied=proxied)
    return Risk(
        observations=len(total),
        volatility=float(np.std(total, ddof=1)) * math.sqrt(DAYS_A_YEAR),
        beta=beta(total, market),
        contributions=dict(zip(held, _contributions(own, shares), strict=False)),
        tails=tails,
        hypothetical=compute_figures(total),
        reason=None,
        proxied=proxied,
    )


def value_at_risk(daily: Panel | None, weights: Mapping[str, float], level: float) -> float | None:
    """One-day loss exceeded on a share 1 - level of the days, filtered historical, as a fraction.

    The same returns as the tails of `risk_of`; 0 if nothing is held, None if it is not known.
    """
    held = {symbol: weight for symbol, weight in weights.items() if weight > 0.0}
    if not held:
        return 0.0
    if daily is None or _missing(daily, held) is not None:
        return None
    longer, _ = _proxied(*_returns(daily, held), tuple(held))
    loss, _ = var_cvar(longer @ np.array(list(held.values())), level, Method.FILTERED)
    return None if loss is None else max(loss, 0.0)


def _missing(daily: Panel | None, held: Mapping[str, float]) -> str | None:
    known = () if daily is None else daily.symbols
    return next((symbol for symbol in held if symbol not in known), None)


def _returns(daily: Panel, held: Mapping[str, float]) -> tuple[Floats, Floats]:
    """Simple returns of the symbols held (T, N) and of the market (T,), NaN where unknown."""
    columns = {name: at for at, name in enumerate(daily.symbols)}
    simple = simple_returns(unbroken(daily))
    market = simple[:, columns[MARKET]] if MARKET in columns else np.full(len(simple), np.nan)
    return simple[:, [columns[symbol] for symbol in held]], market


def _proxied(
    own: Floats, market: Floats, symbols: tuple[str, ...]
) -> tuple[Floats, Mapping[str, int]]:
    """The returns (T, N) with the days before each symbol's first filled in; days by symbol.

    beta * market + a draw from its own residuals, seeded by its name: the same history gives the
    same answer. A symbol with fewer than 30 returns beside the market's is left as it is, and so
    are gaps after its first day: days that are not complete are left out. Source: QUANT section 9.
    """
    filled, days = own.copy(), dict[str, int]()
    for at, symbol in enumerate(symbols):
        known = np.isfinite(own[:, at])
        before = (np.cumsum(known) == 0) & np.isfinite(market)
        slope = beta(own[:, at], market)
        if slope is None or not before.any():
            continue
        residuals = (own[:, at] - slope * market)[known & np.isfinite(market)]
        drawn = np.random.default_rng(int.from_bytes(symbol.encode(), "big"))
        days[symbol] = int(before.sum())
        filled[before, at] = slope * market[before] + drawn.choice(residuals, days[symbol])
    return filled[np.isfinite(filled).all(axis=1)], days


def _tails(returns: Floats, whole: Floats) -> tuple[TailRisk, ...]:
    """Of `returns` (T,), judged by those of the days that are `whole`."""
    return tuple(
        TailRisk(level, *var_cvar(returns, level, Method.FILTERED), _backtest(whole, level))
        for level in LEVELS
    )


def _backtest(returns: Floats, level: float) -> TailBacktest | None:
    beyond, days = count_exceptions(returns, level, WINDOW, Method.FILTERED)
    share = round(1.0 - level, 12)
    ratio, p_value = run_kupiec_test(beyond, days, share)
    return TailBacktest(WINDOW, days, beyond, days * share, ratio, p_value) if days else None


def beta(returns: Floats, market: Floats) -> float | None:
    """Slope on the market's returns, (T,) each, NaN left out; None below 30 common days."""
    common = np.isfinite(returns) & np.isfinite(market)
    if common.sum() < LEAST_DAYS:
        return None
    own, base = returns[common] - returns[common].mean(), market[common] - market[common].mean()
    spread = float(base @ base)
    return float(own @ base) / spread if spread > 0.0 else None


def _contributions(returns: Floats, shares: Floats) -> list[float]:
    """w_i (S w)_i / w'S w, (N,); empty where nothing moved."""
    covariance = np.atleast_2d(np.cov(returns, rowvar=False))
    parts = shares * (covariance @ shares)
    variance = float(parts.sum())
    return (parts / variance).tolist() if variance > 0.0 else []


def _unknown(reason: str, made: Figures | None = None) -> Risk:
    nothing = compute_figures(np.empty(0)) if made is None else made
    tails = tuple(TailRisk(level, None, None) for level in LEVELS)
    return Risk(nothing.observations, None, None, {}, tails, nothing, reason)
