"""Risk at the weights of today, against plain covariance; gaps are never filled in."""

import numpy as np
import pytest

from app.market.domain.models import Floats, Interval
from app.market.domain.panel import Panel
from app.portfolio.domain.risk import beta, compute_risk, value_at_risk
from app.portfolio.domain.value_at_risk import run_kupiec_test, var_cvar


def _panel(returns: Floats, symbols: tuple[str, ...]) -> Panel:
    grown = np.cumprod(1.0 + returns, axis=0)
    close = np.asarray(np.concatenate([np.ones((1, returns.shape[1])), grown]), np.float64)
    opened = np.arange(len(close), dtype=np.int64) * Interval.DAY.ms
    return Panel(Interval.DAY, symbols, opened, close, close, close, close, close, close)


RETURNS = np.random.default_rng(5).normal(0.0, 0.03, (120, 3))
SYMBOLS = ("A", "B", "BTCUSDT")


def test_contributions_add_up_and_beta_is_the_slope() -> None:
    made = compute_risk(_panel(RETURNS, SYMBOLS), {"A": 0.2, "BTCUSDT": 0.4, "B": 0.0})
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


def test_the_tails_are_judged_by_kupiec_on_the_days_that_were() -> None:
    made = compute_risk(_panel(RETURNS, SYMBOLS), {"A": 0.2, "BTCUSDT": 0.4})
    total = RETURNS @ np.array([0.2, 0.0, 0.4])
    for tail, share in zip(made.tails, (0.05, 0.01), strict=True):
        judged = tail.backtest
        assert judged is not None
        assert (judged.window, judged.days) == (90, 30)
        beyond = 0
        for day in range(90, 120):
            var, _ = var_cvar(total[day - 90 : day], tail.level)
            beyond += -total[day] > (var or 0.0)
        assert judged.exceptions == beyond
        assert judged.expected == pytest.approx(30 * share)
        assert (judged.likelihood_ratio, judged.p_value) == run_kupiec_test(beyond, 30, share)
        assert judged.p_value is not None
        assert judged.is_rejected == (judged.p_value < 0.05)
    young = _panel(RETURNS, SYMBOLS)
    young.close[:60, 0] = np.nan  # its proxied days judge nothing
    assert [tail.backtest for tail in compute_risk(young, {"A": 0.2, "BTCUSDT": 0.4}).tails] == [
        None
    ] * 2


def test_too_many_days_beyond_reject_it_and_as_many_as_expected_do_not() -> None:
    returns = np.random.default_rng(2).normal(0.0, 0.01, (190, 1))
    (calm, _) = compute_risk(_panel(returns, ("BTCUSDT",)), {"BTCUSDT": 1.0}).tails
    returns[100::9, 0] = -0.03 * 1.4 ** np.arange(10)  # worse than the days before let expect
    (stormy, _) = compute_risk(_panel(returns, ("BTCUSDT",)), {"BTCUSDT": 1.0}).tails
    assert calm.backtest is not None
    assert stormy.backtest is not None
    assert (calm.backtest.days, calm.backtest.is_rejected) == (100, False)
    assert stormy.backtest.exceptions >= 10
    assert stormy.backtest.is_rejected


def test_only_days_on_which_all_traded_count() -> None:
    panel = _panel(RETURNS, SYMBOLS)
    panel.close[10:15, 0] = np.nan
    assert compute_risk(panel, {"A": 0.2, "B": 0.2}).observations == 114
    later = _panel(RETURNS, SYMBOLS)
    later.close[:95, 1] = np.nan
    young = compute_risk(later, {"A": 0.2, "B": 0.2})
    assert young.reason == "25 common days, 30 are needed"
    assert (young.volatility, young.beta, young.tails[0].var) == (None, None, None)
    assert young.contributions == {}


def test_what_is_not_known() -> None:
    panel = _panel(RETURNS[:, :2], ("A", "B"))
    assert compute_risk(panel, {"C": 0.2}).reason == "C has no daily candles"
    assert compute_risk(None, {"C": 0.2}).reason == "C has no daily candles"
    assert compute_risk(panel, {}).reason == "nothing is held"
    assert compute_risk(panel, {"A": 1.0}).beta is None
    still = compute_risk(_panel(np.zeros((60, 1)), ("A",)), {"A": 1.0})
    assert (still.volatility, still.contributions) == (0.0, {})
    assert beta(np.ones(40), np.ones(40)) is None


def _young(days: int) -> tuple[Panel, Floats]:
    """A follows the market with beta 1.5 and a noise of its own, but is only `days` old."""
    market = np.random.default_rng(8).normal(0.0, 0.03, 200)
    noise = np.random.default_rng(9).normal(0.0, 0.01, 200)
    returns = np.column_stack([1.5 * market + noise, market])
    panel = _panel(returns, ("A", "BTCUSDT"))
    panel.close[: 200 - days, 0] = np.nan
    return panel, returns


def test_the_tails_of_a_young_member_rest_on_the_market_before_its_first_day() -> None:
    panel, returns = _young(80)
    made = compute_risk(panel, {"A": 1.0})
    assert made.observations == 80  # what was really seen, and what the other figures rest on
    assert made.volatility == pytest.approx(np.std(returns[120:, 0], ddof=1) * np.sqrt(365))
    assert made.proxied == {"A": 120}
    full = compute_risk(_panel(returns, ("A", "BTCUSDT")), {"A": 1.0})
    assert full.proxied == {}
    assert made.tails[0].var == pytest.approx(full.tails[0].var, rel=0.25)
    assert made == compute_risk(panel, {"A": 1.0})  # the draw is the same each time
    assert value_at_risk(panel, {"A": 1.0}, 0.95) == made.tails[0].var


def test_a_member_with_too_few_days_of_its_own_is_not_proxied() -> None:
    panel, _ = _young(29)
    made = compute_risk(panel, {"A": 0.5, "BTCUSDT": 0.5})
    assert (made.proxied, made.tails[0].var) == ({}, None)
    assert made.reason == "29 common days, 30 are needed"
    assert value_at_risk(panel, {"A": 0.5, "BTCUSDT": 0.5}, 0.95) is None
    # Thirty days say how it moves with the market, but not yet how volatile it is as a whole.
    panel, _ = _young(31)
    enough = compute_risk(panel, {"A": 0.5, "BTCUSDT": 0.5})
    assert enough.proxied == {"A": 169}
    assert (enough.tails[0].var or 0.0) > 0.0


def test_value_at_risk_without_holdings_or_history() -> None:
    panel, _ = _young(80)
    assert value_at_risk(panel, {"A": 0.0}, 0.95) == 0.0
    assert value_at_risk(None, {"A": 1.0}, 0.95) is None
    assert value_at_risk(panel, {"Z": 1.0}, 0.95) is None
    rising = _panel(np.linspace(0.01, 0.02, 120)[:, None], ("A",))
    assert value_at_risk(rising, {"A": 1.0}, 0.95) == 0.0  # a gain is no loss
