"""The same figures by other people's libraries, on random panels: both must agree."""

import warnings
from typing import Any

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.market.domain import return_statistics as measures
from app.portfolio.domain.returns import compute_figures
from app.portfolio.domain.weighting import (
    hierarchical_parity,
    project_weights,
    risk_parity,
    shrink_covariance,
)
from app.scoring.domain import indicator_series
from app.scoring.domain.factors import rank_to_normal
from tests.support.market_files import TEN, needs_daily_panel, perpetual

Floats = NDArray[np.float64]
seeds = st.integers(0, 2**31)
FULL = 100_000_000
EXACT = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}  # of a solver


def bars(seed: int, count: int, level: float, scale: float) -> tuple[Floats, Floats, Floats]:
    """High, low and close of a random walk, one column."""
    rng = np.random.default_rng(seed)
    close = level * np.exp(np.cumsum(rng.standard_t(4, count) * scale))
    before = np.concatenate([close[:1], close[:-1]])
    wick = np.abs(rng.normal(0.0, scale, (2, count)))
    high = np.maximum(close, before) * np.exp(wick[0])
    return high[:, None], (np.minimum(close, before) * np.exp(-wick[1]))[:, None], close[:, None]


@given(seeds, st.integers(40, 400), st.floats(1e-5, 1e5), st.floats(1e-3, 0.1))
@settings(max_examples=40, deadline=None)
def test_talib_has_the_same_indicators(seed: int, count: int, level: float, scale: float) -> None:
    talib = pytest.importorskip("talib")
    high, low, close = bars(seed, count, level, scale)
    line, signal, histogram = indicator_series.macd(close)
    upper, middle, lower = indicator_series.bollinger(close)
    flat = close[:, 0]
    theirs = {
        "rsi": (indicator_series.rsi(close), talib.RSI(flat, 14), 1e-9),
        "atr": (
            indicator_series.atr(high, low, close),
            talib.ATR(high[:, 0], low[:, 0], flat, 14),
            1e-9,
        ),
        "ema": (indicator_series.ema(close, 12), talib.EMA(flat, 12), 1e-9),
    }
    macd, bands = talib.MACD(flat, 12, 26, 9), talib.BBANDS(flat, 20, 2.0, 2.0, 0)
    for name, mine, other in zip("lsh", (line, signal, histogram), macd, strict=True):
        theirs[f"macd {name}"] = (mine, other, 0.0)
    for name, mine, other in zip("uml", (upper, middle, lower), bands, strict=True):
        theirs[f"band {name}"] = (mine, other, 0.0)
    for name, (mine, other, relative) in theirs.items():
        np.testing.assert_allclose(
            mine[:, 0], other, rtol=relative, atol=1e-11 * flat.max(), err_msg=name
        )


def test_a_market_that_stands_still_is_neutral_where_talib_calls_it_weak() -> None:
    talib = pytest.importorskip("talib")
    still = np.full((40, 1), 7.0)
    assert indicator_series.rsi(still)[-1, 0] == 50.0
    assert talib.RSI(still[:, 0], 14)[-1] == 0.0


@given(seeds, st.integers(1, 80), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_scipy_has_the_same_ranks(seed: int, count: int, levels: int) -> None:
    values = np.random.default_rng(seed).integers(0, levels, count).astype(np.float64)
    theirs = scipy.stats.norm.ppf((scipy.stats.rankdata(values) - 0.5) / count)
    np.testing.assert_allclose(rank_to_normal(values), theirs, rtol=1e-12, atol=1e-12)


def covariances(seed: int, size: int, days: int = 250) -> tuple[Floats, Floats]:
    """Returns with a common factor and their covariance."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0.0, 0.02, (days, 1)) * rng.uniform(0.2, 1.5, size)
    returns = common + rng.standard_t(5, (days, size)) * rng.uniform(0.005, 0.04, size)
    return returns, np.cov(returns.T)


@pytest.mark.long
@given(seeds, st.integers(2, 20), st.integers(30, 300))
@settings(max_examples=60, deadline=None)
def test_scikit_learn_shrinks_as_much(seed: int, size: int, days: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    returns, _ = covariances(seed, size, days)
    theirs = covariance.LedoitWolf().fit(returns)
    matrix, share = shrink_covariance(returns)
    assert share == pytest.approx(theirs.shrinkage_, abs=1e-12)
    np.testing.assert_allclose(matrix, theirs.covariance_, rtol=1e-10, atol=1e-15)


@pytest.mark.long
@given(seeds, st.integers(2, 10))
@settings(max_examples=15, deadline=None)
def test_skfolio_has_the_same_risk_budgets(seed: int, size: int) -> None:
    optimization = pytest.importorskip("skfolio.optimization")
    returns, matrix = covariances(seed, size)
    budgets = np.random.default_rng(seed).uniform(0.5, 2.0, size)
    model = optimization.RiskBudgeting(risk_budget=budgets / budgets.sum(), min_weights=0.0)
    np.testing.assert_allclose(risk_parity(matrix, budgets), _weights(model, returns), atol=2e-5)
    inverse = 1.0 / np.sqrt(np.diag(matrix))
    np.testing.assert_allclose(
        inverse / inverse.sum(), _weights(optimization.InverseVolatility(), returns), atol=1e-14
    )


@pytest.mark.long
@needs_daily_panel
def test_skfolio_has_the_same_hierarchy_of_ten_perpetuals() -> None:
    """Of these as it is used by default; on other panels that turns branches of the tree round."""
    optimization = pytest.importorskip("skfolio.optimization")
    closes = np.hstack([perpetual(f"{name}USDT")["close"] for name in TEN])
    returns = (closes[1:] / closes[:-1] - 1.0)[-250:]
    tree = _weights(optimization.HierarchicalRiskParity(), returns)
    np.testing.assert_allclose(hierarchical_parity(np.cov(returns.T)), tree, atol=1e-5)


@pytest.mark.long
@given(seeds, st.integers(2, 14))
@settings(max_examples=25, deadline=None)
def test_skfolio_has_the_same_hierarchy_where_branches_stand_as_they_were_joined(
    seed: int, size: int
) -> None:
    """Turning branches round is an addition to the published procedure: off, they agree."""
    optimization = pytest.importorskip("skfolio.optimization")
    seriation = pytest.importorskip("skfolio.seriation")
    returns, matrix = covariances(seed, size)
    order = seriation.HierarchicalSeriation(optimal_ordering=False)
    theirs = _weights(optimization.HierarchicalRiskParity(seriation_estimator=order), returns)
    np.testing.assert_allclose(hierarchical_parity(matrix), theirs, atol=1e-8)


def _weights(model: Any, returns: Floats) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(model.fit(returns).weights_, np.float64)


@pytest.mark.long
@given(seeds, st.integers(6, 12))
@settings(max_examples=15, deadline=None)
def test_a_solver_finds_the_same_projection(seed: int, size: int) -> None:
    """The weights closest in relative entropy to the proportions, within the bounds."""
    cvxpy = pytest.importorskip("cvxpy")
    scores = np.random.default_rng(seed).lognormal(0.0, 0.8, size)
    weights = cvxpy.Variable(size)
    distance = cvxpy.sum(cvxpy.kl_div(weights, scores / scores.sum()))
    bounds = [cvxpy.sum(weights) == 1.0, weights >= 0.05, weights <= 0.20]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cvxpy.Problem(cvxpy.Minimize(distance), bounds).solve(solver="CLARABEL", **EXACT)
    units, flags = project_weights(scores.tolist(), 5_000_000, 20_000_000, FULL)
    assert not flags
    np.testing.assert_allclose(np.array(units) / FULL, weights.value, atol=1e-5)


@pytest.mark.long
@given(seeds, st.integers(50, 200))
@settings(max_examples=30, deadline=None)
def test_statsmodels_has_the_same_market_model(seed: int, days: int) -> None:
    statsmodels = pytest.importorskip("statsmodels.api")
    returns, _ = covariances(seed, 3, days)
    model = measures.market_model(returns, returns[:, 0], 30)
    for column in (1, 2):
        theirs = statsmodels.OLS(returns[:, column], statsmodels.add_constant(returns[:, 0])).fit()
        assert model.beta[column] == pytest.approx(theirs.params[1], rel=1e-10, abs=1e-12)
        assert model.correlation[column] ** 2 == pytest.approx(theirs.rsquared, abs=1e-12)
        left = np.std(theirs.resid, ddof=1) * np.sqrt(365.0)
        assert model.residual_volatility[column] == pytest.approx(left, rel=1e-10)


@pytest.mark.long
@given(seeds, st.integers(40, 400))
@settings(max_examples=30, deadline=None)
def test_quantstats_has_the_same_measures_of_performance(seed: int, days: int) -> None:
    pandas = pytest.importorskip("pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stats = pytest.importorskip("quantstats.stats")
    returns = np.random.default_rng(seed).standard_t(5, days) * 0.02 + 0.0005
    mine = compute_figures(returns)
    series = pandas.Series(returns, index=pandas.date_range("2024-01-01", periods=days))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert mine.sharpe == pytest.approx(stats.sharpe(series, periods=365), rel=1e-10)
        assert mine.sortino == pytest.approx(stats.sortino(series, periods=365), rel=1e-10)
        assert mine.max_drawdown == pytest.approx(-stats.max_drawdown(series), abs=1e-10)
