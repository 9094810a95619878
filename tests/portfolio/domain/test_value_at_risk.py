"""Tails of returns against published numbers, by hand, and on real data; unknown stays unknown."""

import math

import numpy as np
import pytest
import scipy
from scipy.special import ndtri

from app.market.domain.models import Floats
from app.portfolio.domain.value_at_risk import (
    LEAST,
    Method,
    count_exceptions,
    run_kupiec_test,
    var_cvar,
)
from tests.support.market_files import needs_daily_panel, ten_perpetuals


def _walk(size: int = 500) -> Floats:
    return np.random.default_rng(3).normal(0.001, 0.02, size)


def test_kupiec_gives_the_published_numbers() -> None:
    ratio, p = run_kupiec_test(14, 250, 0.05)
    assert ratio == pytest.approx(0.18269688, abs=5e-9)
    assert p == pytest.approx(0.66906572, abs=5e-8)


def test_kupiec_at_its_ends() -> None:
    assert run_kupiec_test(0, 0, 0.05) == (None, None)
    assert run_kupiec_test(5, 100, 0.05) == (0.0, 1.0)
    none_seen, _ = run_kupiec_test(0, 250, 0.05)
    assert none_seen == pytest.approx(-2 * 250 * math.log(0.95))
    all_seen, p = run_kupiec_test(10, 10, 0.05)
    assert all_seen == pytest.approx(-2 * 10 * math.log(0.05))
    assert p is not None
    assert p < 1e-12
    for wrong in ((-1, 10, 0.05), (11, 10, 0.05), (1, 10, 0.0), (1, 10, 1.0)):
        with pytest.raises(ValueError, match="exceptions"):
            run_kupiec_test(*wrong)


def test_the_historical_tail_by_hand() -> None:
    returns = np.arange(100, -1, -1) / 100.0 - 0.5  # -0.50, -0.49 ... 0.50 in reverse
    var, cvar = var_cvar(returns, 0.9, Method.HISTORICAL)
    assert var == pytest.approx(0.40)
    assert cvar == pytest.approx(np.mean(np.arange(0.40, 0.505, 0.01)))  # the eleven lowest


def test_ewma_is_normal_with_the_variance_of_today() -> None:
    returns = _walk(60)
    variance = float(np.mean(returns[:30] ** 2))
    for one in returns[30:]:
        variance = 0.94 * variance + 0.06 * one**2
    var, cvar = var_cvar(returns, 0.99, Method.EWMA)
    assert var == pytest.approx(-scipy.stats.norm.ppf(0.01) * math.sqrt(variance))
    tail = scipy.stats.norm.expect(
        lambda x: -x, lb=-np.inf, ub=scipy.stats.norm.ppf(0.01), conditional=True
    )
    assert cvar == pytest.approx(tail * math.sqrt(variance), rel=1e-6)


def test_filtered_surprises_are_scaled_to_today() -> None:
    returns = _walk()
    var, cvar = var_cvar(returns, 0.95)
    stormy, stormy_cvar = var_cvar(np.concatenate([returns, [0.2, -0.2, 0.2]]), 0.95)
    assert var is not None
    assert cvar is not None
    assert stormy is not None
    assert stormy_cvar is not None
    assert stormy > 2.0 * var
    assert stormy_cvar > stormy
    assert cvar > var
    # Scale of the returns is scale of the losses.
    assert var_cvar(returns * 3.0, 0.95)[0] == pytest.approx(3.0 * var)


@pytest.mark.parametrize("method", list(Method))
def test_too_few_returns_say_nothing(method: Method) -> None:
    assert var_cvar(_walk(LEAST - 1), 0.95, method) == (None, None)
    assert var_cvar(np.full(400, np.nan), 0.95, method) == (None, None)
    known = _walk(90)
    gaps = np.insert(known, [10, 50], np.nan)
    assert var_cvar(gaps, 0.95, method) == var_cvar(known, 0.95, method)


def test_a_market_that_never_moved_has_no_surprises() -> None:
    still = np.zeros(100)
    assert var_cvar(still, 0.95) == (None, None)
    assert var_cvar(still, 0.95, Method.HISTORICAL) == (0.0, 0.0)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, float("nan")])
def test_a_level_lies_between_0_and_1(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        var_cvar(_walk(), level)


@pytest.mark.parametrize("method", list(Method))
def test_coverage_of_its_own_model_passes_kupiec(method: Method) -> None:
    beyond, judged = count_exceptions(_walk(800), 0.95, 250, method)
    assert judged == 550
    _, p = run_kupiec_test(beyond, judged, 0.05)
    assert p is not None
    assert p > 0.05
    assert count_exceptions(_walk(100), 0.95, 20, method) == (0, 0)


def test_cornish_fisher_bends_the_normal_quantile() -> None:
    rng = np.random.default_rng(5)
    returns = rng.normal(0.001, 0.02, 400) - 0.004 * rng.exponential(1.0, 400)
    sd, z = returns.std(), -1.6448536269514722
    unit = (returns - returns.mean()) / sd
    skew, excess = (unit**3).mean(), (unit**4).mean() - 3

    def quantile(z: np.ndarray) -> np.ndarray:
        bent = z + (z**2 - 1) * skew / 6 + (z**3 - 3 * z) * excess / 24
        return np.asarray(returns.mean() + sd * (bent - (2 * z**3 - 5 * z) * skew**2 / 36))

    var, cvar = var_cvar(returns, 0.95, Method.CORNISH_FISHER)
    assert var == pytest.approx(-quantile(np.array([z]))[0], rel=1e-9)
    shares = (np.arange(200_000) + 0.5) / 200_000 * 0.05
    assert cvar == pytest.approx(-quantile(ndtri(shares)).mean(), rel=1e-4)
    normal = rng.normal(0.0, 0.02, 40_000)
    assert var_cvar(normal, 0.99, Method.CORNISH_FISHER)[0] == pytest.approx(0.0465, rel=0.05)


def test_cornish_fisher_says_nothing_where_it_is_no_quantile_function() -> None:
    one_crash = np.append(np.random.default_rng(6).normal(0.0, 0.01, 200), -0.5)
    assert var_cvar(one_crash, 0.95, Method.CORNISH_FISHER) == (None, None)
    two = np.resize([-0.01, 0.01], 200)  # no tails at all: it would turn over
    assert var_cvar(two, 0.95, Method.CORNISH_FISHER) == (None, None)
    assert var_cvar(np.zeros(40), 0.95, Method.CORNISH_FISHER) == (None, None)


@pytest.mark.parametrize("window", [59, 60, 90])
def test_all_days_judged_at_once_are_the_days_judged_one_by_one(window: int) -> None:
    returns = np.random.default_rng(11).standard_t(3, 260) * 0.02
    for level in (0.9, 0.95, 0.99):
        one_by_one = [
            (var, -returns[day])
            for day in range(window, len(returns))
            if (var := var_cvar(returns[day - window : day], level)[0]) is not None
        ]
        counted = sum(loss > var for var, loss in one_by_one), len(one_by_one)
        assert count_exceptions(returns, level, window, Method.FILTERED) == counted
    assert (counted[1] == 0) is (window < 60)
    still = np.concatenate([np.zeros(70), returns[:80]])  # no variance: one by one
    beyond, judged = count_exceptions(still, 0.95, 60, Method.FILTERED)
    assert 0 < judged < 90
    assert beyond > 0


@needs_daily_panel
def test_the_tail_of_ten_perpetuals_has_the_published_numbers() -> None:
    var, cvar = var_cvar(ten_perpetuals(), 0.95, Method.HISTORICAL)
    assert var == pytest.approx(0.0596993742, abs=1e-10)
    assert cvar == pytest.approx(0.0920419183, abs=1e-10)
