"""Risk at the weights of today, against plain covariance; gaps are never filled in."""

import numpy as np
import pytest

from app.domain.market import Floats, Interval
from app.domain.panel import Panel
from app.domain.portfolio_risk import beta, risk_of


def _panel(returns: Floats, symbols: tuple[str, ...]) -> Panel:
    grown = np.cumprod(1.0 + returns, axis=0)
    close = np.asarray(np.concatenate([np.ones((1, returns.shape[1])), grown]), np.float64)
    opened = np.arange(len(close), dtype=np.int64) * Interval.DAY.ms
    return Panel(Interval.DAY, symbols, opened, close, close, close, close, close, close)


RETURNS = np.random.default_rng(5).normal(0.0, 0.03, (120, 3))
SYMBOLS = ("A", "B", "BTCUSDT")


def test_contributions_add_up_and_beta_is_the_slope() -> None:
    made = risk_of(_panel(RETURNS, SYMBOLS), {"A": 0.2, "BTCUSDT": 0.4, "B": 0.0})
    total = RETURNS @ np.array([0.2, 0.0, 0.4])
    assert made.observations == 120
    assert made.reason is None
    assert made.volatility == pytest.approx(np.std(total, ddof=1) * np.sqrt(365))
    covariance = np.cov(total, RETURNS[:, 2])
    assert made.beta == pytest.approx(covariance[0, 1] / covariance[1, 1])
    assert sum(made.contributions.values()) == pytest.approx(1.0)
    share = 0.2 * np.cov(RETURNS[:, 0], total)[0, 1] / np.var(total, ddof=1)
    assert made.contributions["A"] == pytest.approx(share)
    assert made.contributions.keys() == {"A", "BTCUSDT"}
    five, one = made.tails
    assert (five.level, one.level) == (0.95, 0.99)
    assert 0.0 < (five.var or 0.0) < (five.cvar or 0.0)
    assert (one.var or 0.0) > (five.var or 0.0)


def test_only_days_on_which_all_traded_count() -> None:
    panel = _panel(RETURNS, SYMBOLS)
    panel.close[10:20, 0] = np.nan
    assert risk_of(panel, {"A": 0.2, "B": 0.2}).observations == 109
    panel.close[:95, 1] = np.nan
    young = risk_of(panel, {"A": 0.2, "B": 0.2})
    assert young.reason == "25 common days, 30 are needed"
    assert (young.volatility, young.beta, young.tails[0].var) == (None, None, None)
    assert young.contributions == {}


def test_what_is_not_known() -> None:
    panel = _panel(RETURNS[:, :2], ("A", "B"))
    assert risk_of(panel, {"C": 0.2}).reason == "C has no daily candles"
    assert risk_of(None, {"C": 0.2}).reason == "C has no daily candles"
    assert risk_of(panel, {}).reason == "nothing is held"
    assert risk_of(panel, {"A": 1.0}).beta is None
    still = risk_of(_panel(np.zeros((60, 1)), ("A",)), {"A": 1.0})
    assert (still.volatility, still.contributions) == (0.0, {})
    assert beta(np.ones(40), np.ones(40)) is None
