"""Value at risk and expected shortfall of daily returns, with a backtest.

Horizon one day; losses are positive fractions. Source: QUANT section 9.
"""

import math
from enum import StrEnum
from typing import Final

import numpy as np
from scipy.special import chdtrc, ndtri, xlogy

from app.foundation.decimal_math import ONE, to_millionths
from app.market.domain.models import Floats

LEAST: Final = 30  # returns needed for a tail
_SEED: Final = 30  # returns that start the variance of the filter and are not used otherwise
_DECAY: Final = 0.94
_FAR: Final = -4.0  # normal quantile of one day in thirty thousand


class Method(StrEnum):
    """Method that estimates the tail."""

    HISTORICAL = "historical"
    CORNISH_FISHER = "cornish_fisher"  # normal, adjusted by skewness and kurtosis
    EWMA = "ewma"  # normal, with the current variance
    FILTERED = "filtered_historical"  # standardised past returns, scaled to the current variance


def var_cvar(
    returns: Floats, level: float, method: Method = Method.FILTERED
) -> tuple[float | None, float | None]:
    """Loss exceeded on a share 1 - level of the days, and the mean loss on those days.

    Daily simple returns (T,), NaN left out; level such as 0.95. (None, None) below 30 usable
    returns; the filter spends 30 more on its start. Quantiles are linear; the shortfall is the
    mean of the k+1 lowest, k = int((T-1)(1-level)). Raises ValueError for a level not in (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError("the level must lie between 0 and 1")
    known = returns[np.isfinite(returns)]
    share = round(1.0 - level, 12)  # 1 - 0.9 is a hair below a tenth
    if method is Method.EWMA:
        return _normal(known, share)
    if method is Method.CORNISH_FISHER:
        return _cornish_fisher(known, share)
    if method is Method.HISTORICAL:
        return _tail(known, share)
    if len(known) < _SEED + LEAST:
        return None, None
    variances = _variances(known)
    sigma = np.sqrt(variances)
    # A day of zero variance has no standardised return.
    surprises = known[_SEED:][sigma[:-1] > 0.0] / sigma[:-1][sigma[:-1] > 0.0]
    return _tail(surprises, share, float(sigma[-1]))


def run_kupiec_test(
    exceptions: int, observations: int, share: float
) -> tuple[float | None, float | None]:
    """Likelihood ratio and p-value of `exceptions` days beyond a VaR of expected `share`.

    Chi-squared with one degree of freedom; (None, None) without observations. Raises ValueError
    for impossible counts or shares.
    """
    if not 0 <= exceptions <= observations or not 0.0 < share < 1.0:
        raise ValueError("need 0 <= exceptions <= observations and 0 < share < 1")
    if observations == 0:
        return None, None
    quiet, seen = observations - exceptions, exceptions / observations
    expected = xlogy(quiet, 1.0 - share) + xlogy(exceptions, share)
    observed = xlogy(quiet, 1.0 - seen) + xlogy(exceptions, seen)
    ratio = max(0.0, float(-2.0 * (expected - observed)))
    return ratio, float(chdtrc(1.0, ratio))


def count_exceptions(returns: Floats, level: float, window: int, method: Method) -> tuple[int, int]:
    """Days whose loss exceeded the VaR of the `window` returns before, and the days tested.

    Each VaR uses only returns before its day; NaN returns are left out first.
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
    """Filtered VaR of every day after the first `window`, vectorised and equal to `var_cvar`.

    None if any day lacks one: the window is too short or a variance is zero.
    """
    if window < _SEED + LEAST or len(known) <= window:
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
    if len(values) < LEAST:
        return None, None
    lowest = np.sort(values)[: (len(values) - 1) * to_millionths(share) // ONE + 1]
    return -float(np.quantile(values, share)) * scale, -float(lowest.mean()) * scale


def _normal(values: Floats, share: float) -> tuple[float, float] | tuple[None, None]:
    if len(values) < LEAST:
        return None, None
    sigma, z = math.sqrt(float(_variances(values)[-1])), float(ndtri(share))
    density = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)
    return -z * sigma, density / share * sigma


def _cornish_fisher(values: Floats, share: float) -> tuple[float, float] | tuple[None, None]:
    """Tail quantile and mean, adjusted by the sample's skewness and excess kurtosis.

    (None, None) if the expansion does not rise from a day in thirty thousand to the quantile:
    a rarer day would then lose less. Large skewness or kurtosis causes that.
    """
    mean, sd = (float(values.mean()), float(values.std())) if len(values) >= LEAST else (0.0, 0.0)
    if not sd > 0.0:
        return None, None
    skew = float(np.mean(((values - mean) / sd) ** 3))
    excess = float(np.mean(((values - mean) / sd) ** 4)) - 3.0
    z = float(ndtri(share))
    a, b, c = excess / 8.0 - skew**2 / 6.0, skew / 3.0, 1.0 - excess / 8.0 + 5.0 * skew**2 / 36.0
    # The slope is lowest at an end, or at the vertex of an upward parabola.
    turn = min(max(-b / (2.0 * a), _FAR), z) if a > 0.0 else z
    if min((a * at + b) * at + c for at in (_FAR, turn, z)) <= 0.0:
        return None, None
    hazard = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi) / share

    def adjusted(first: float, second: float, third: float) -> float:
        moved = first + (second - 1.0) * skew / 6.0 + (third - 3.0 * first) * excess / 24.0
        return mean + sd * (moved - (2.0 * third - 5.0 * first) * skew**2 / 36.0)

    # The moments of a normal variable below z give the mean of the expansion below its quantile.
    return -adjusted(z, z * z, z**3), -adjusted(-hazard, 1.0 - z * hazard, -(z * z + 2.0) * hazard)


def _variances(returns: Floats) -> Floats:
    """Forecast variance of each day after the seed and of the day after the last; mean 0."""
    variance = float(np.mean(returns[:_SEED] ** 2))
    out = [variance]
    for one in returns[_SEED:]:
        variance = _DECAY * variance + (1.0 - _DECAY) * float(one) ** 2
        out.append(variance)
    return np.array(out)
