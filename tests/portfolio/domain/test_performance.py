"""Figures since inclusion, against numbers worked out by hand; unknown stays unknown."""

import math

import numpy as np
import pytest
import scipy
from scipy.special import ndtr

from app.portfolio.domain.events import PortfolioChanged
from app.portfolio.domain.returns import (
    compute_equity_figures,
    compute_figures,
    ratio_error,
    since_inclusion,
)
from tests.support.market_files import needs_daily_panel, ten_perpetuals
from tests.support.portfolios import T0

NAN = float("nan")


def test_performance_needs_both_prices() -> None:
    empty = np.empty(0)
    assert since_inclusion(10.0, 11.0, empty, 365.0).performance == pytest.approx(0.1)
    for price, mark in ((None, 11.0), (10.0, None), (0.0, 11.0)):
        assert since_inclusion(price, mark, empty, 365.0).performance is None


def test_the_drawdown_is_known_from_two_prices_on_and_volatility_from_three_closes() -> None:
    assert since_inclusion(10.0, 5.0, np.empty(0), 365.0).max_drawdown == 0.5
    for price, mark in ((10.0, None), (None, 5.0)):
        assert since_inclusion(price, mark, np.empty(0), 365.0).max_drawdown is None
    one = since_inclusion(10.0, 9.0, np.array([8.0, NAN]), 365.0)
    assert one.max_drawdown == pytest.approx(0.2)
    assert one.volatility is None
    two = since_inclusion(10.0, 9.0, np.array([8.0, 12.0]), 365.0)
    assert two.volatility is None
    assert two.max_drawdown == pytest.approx(0.25)  # 12 to 9; 10 to 8 is less


def test_volatility_is_annualised_and_the_drawdown_positive() -> None:
    closes = np.array([100.0, 110.0, 99.0, NAN, 0.0, 121.0])
    made = since_inclusion(None, None, closes, 8760.0)
    returns = np.log([1.1, 0.9, 121 / 99])
    assert made.volatility == pytest.approx(np.std(returns, ddof=1) * math.sqrt(8760))
    assert made.max_drawdown == pytest.approx(0.1)
    rising = since_inclusion(1.0, 4.0, np.array([1.0, 2.0, 3.0]), 365.0)
    assert rising.max_drawdown == 0.0


def test_figures_by_hand() -> None:
    returns = np.tile([0.02, -0.01, 0.03, -0.02], 10)
    made = compute_figures(returns)
    mean, spread = 0.005, np.std(returns, ddof=1)
    equity = (1.02 * 0.99 * 1.03 * 0.98) ** 10
    assert made.observations == 40
    assert made.sharpe == pytest.approx(mean / spread * math.sqrt(365))
    assert made.sortino == pytest.approx(mean / math.sqrt(0.0005 / 4) * math.sqrt(365))
    assert made.max_drawdown == pytest.approx(0.02)
    assert made.growth == pytest.approx(equity - 1)
    assert made.calmar == pytest.approx((equity ** (365 / 40) - 1) / 0.02)
    assert made.win_rate == 0.5
    assert made.profit_factor == pytest.approx(0.05 / 0.03)
    assert made.reason is None


def test_ratios_need_thirty_observations_and_growth_and_drawdown_none() -> None:
    returns = np.tile([0.02, -0.01], 15)
    enough, few = compute_figures(returns), compute_figures(returns[:-1])
    ratios = ("sharpe", "sharpe_standard_error", "sortino", "calmar", "win_rate", "profit_factor")
    assert all(getattr(enough, name) is not None for name in ratios)
    assert [getattr(few, name) for name in ratios] == [None] * 6
    assert few.max_drawdown == pytest.approx(0.01)
    assert few.growth == pytest.approx(1.02**15 * 0.99**14 - 1)
    assert few.reason == "29 observations, 30 are needed"


def test_what_is_not_defined_is_none() -> None:
    nothing = compute_figures(np.empty(0))
    assert (nothing.observations, nothing.growth, nothing.max_drawdown) == (0, None, None)
    steady = compute_figures(np.full(30, 0.01))
    assert (steady.sharpe, steady.sortino, steady.calmar, steady.profit_factor) == (None,) * 4
    assert (steady.win_rate, steady.max_drawdown) == (1.0, 0.0)


def test_observations_that_are_parts_of_days_count_by_the_time_that_has_passed() -> None:
    quarters = np.random.default_rng(5).normal(0.0005, 0.01, 4000)
    equity = np.concatenate([[1.0], np.cumprod(1.0 + quarters)])
    whole = compute_figures(equity[4::4] / equity[:-4:4] - 1.0)
    parts = compute_equity_figures(equity, quarters, 1000.0)
    assert (whole.observations, parts.observations) == (1000, 4000)
    assert parts.growth == pytest.approx(whole.growth)
    assert whole.sharpe is not None
    assert parts.sharpe == pytest.approx(whole.sharpe, rel=0.05)
    assert parts.sharpe_standard_error == pytest.approx(whole.sharpe_standard_error, rel=0.05)


def test_the_error_of_a_sharpe_ratio_as_published() -> None:
    error = ratio_error(0.05, 793, -0.11, 5.6)
    assert error is not None
    assert float(ndtr(0.05 / error)) == pytest.approx(0.9194331983, abs=1e-9)
    assert ratio_error(2.0, 50, 3.0, 1.0) is None  # no such moments
    assert ratio_error(0.05, 1, 0.0, 3.0) is None


def test_a_figure_comes_with_what_it_is_worth() -> None:
    returns = np.random.default_rng(2).normal(0.001, 0.02, 400)
    made = compute_figures(returns)
    ratio = returns.mean() / returns.std(ddof=1)
    error = ratio_error(
        ratio,
        400,
        float(scipy.stats.skew(returns)),
        float(scipy.stats.kurtosis(returns, fisher=False)),
    )
    assert error is not None
    assert made.sharpe_standard_error == pytest.approx(error * math.sqrt(365))
    # Of many samples the ratios scatter by about as much as one sample says.
    rng = np.random.default_rng(3)
    ratios = [compute_figures(rng.normal(0.001, 0.02, 400)).sharpe for _ in range(400)]
    assert np.std([one for one in ratios if one is not None]) == pytest.approx(
        made.sharpe_standard_error, rel=0.15
    )
    assert made.is_sufficient
    assert not compute_figures(returns[:29]).is_sufficient
    assert compute_figures(returns[:30]).is_sufficient
    assert compute_figures(np.full(30, 0.01)).sharpe_standard_error is None


def test_facts_are_values() -> None:
    assert PortfolioChanged(1, 2, "ADD", "A", T0) == PortfolioChanged(1, 2, "ADD", "A", T0)


@needs_daily_panel
def test_ten_perpetuals_have_the_published_figures() -> None:
    made = compute_figures(ten_perpetuals())
    assert made.observations == 250
    assert made.sharpe == pytest.approx(1.0931554426, abs=1e-9)
    assert made.sortino == pytest.approx(1.6524627968, abs=1e-9)
    assert made.calmar == pytest.approx(1.4043070378, abs=1e-9)
    assert made.max_drawdown == pytest.approx(0.5289677178, abs=1e-9)
