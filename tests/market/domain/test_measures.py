"""Volatility, market model, drawdown, variance ratio, correlation."""

import numpy as np
import pytest

from app.configuration.domain.model import CorrelationBasis
from app.market.domain import return_statistics as measures
from app.market.domain.liquidity import illiquidity
from app.market.domain.models import Floats, Interval
from app.market.domain.panel import Panel
from app.market.domain.segments import ContiguousPanel, contiguous, log_returns
from tests.support.market_files import needs_daily_panel, perpetual

NAN = float("nan")
RESIDUAL, RAW = CorrelationBasis.RESIDUAL, CorrelationBasis.RAW


def noise(rows: int, columns: int, seed: int = 3) -> Floats:
    return np.random.default_rng(seed).normal(0.0, 0.02, (rows, columns))


def panel_of(returns: Floats, symbols: tuple[str, ...]) -> Panel:
    first = np.zeros((1, returns.shape[1]))
    close = np.exp(np.cumsum(np.concatenate([first, np.nan_to_num(returns)]), axis=0))
    close[1:][np.isnan(returns)] = NAN
    times = np.arange(len(close), dtype=np.int64) * Interval.DAY.ms
    return Panel(Interval.DAY, symbols, times, close, close, close, close, close, close)


def steady(close: Floats) -> ContiguousPanel:
    """Closes of as many symbols, taken as they are."""
    names = tuple(f"C{number}USDT" for number in range(close.shape[1]))
    times = np.arange(len(close), dtype=np.int64) * Interval.DAY.ms
    return ContiguousPanel(Interval.DAY, names, times, close, close, close, close, close, close)


def test_log_returns_of_missing_and_impossible_prices() -> None:
    close = np.array([[1.0, 1.0, 2.0], [2.0, NAN, 0.0], [4.0, 3.0, 1.0]])
    np.testing.assert_allclose(
        log_returns(steady(close)), [[np.log(2), NAN, NAN], [np.log(2), NAN, NAN]]
    )


def test_ewma_by_hand_skips_missing_days() -> None:
    returns = np.array([[0.02, NAN], [NAN, 0.01], [0.01, -0.03], [-0.03, NAN]])
    first = 0.94 * (0.94 * 0.02**2 + 0.06 * 0.01**2) + 0.06 * 0.03**2
    found = measures.ewma_volatility(returns, least=3)
    np.testing.assert_allclose(found, [np.sqrt(first * 365), NAN])


def test_garman_klass_by_hand() -> None:
    open_, high, low, close = (np.full((2, 1), price) for price in (10.0, 11.0, 9.0, 10.5))
    daily = 0.5 * np.log(11 / 9) ** 2 - (2 * np.log(2) - 1) * np.log(1.05) ** 2
    found = measures.garman_klass(open_, high, low, close, least=2)
    np.testing.assert_allclose(found, [np.sqrt(daily * 365)])
    assert np.isnan(measures.garman_klass(open_, high, low, close, least=3)).all()


def test_market_model_recovers_a_planted_beta() -> None:
    market = noise(60, 1)[:, 0]
    other = noise(60, 1, seed=9)[:, 0]
    other -= np.polyval(np.polyfit(market, other, 1), market)  # exactly what the market leaves
    returns = np.stack([market, 0.5 + 1.7 * market + other, np.full(60, NAN)], axis=1)
    model = measures.market_model(returns, market, 45)
    np.testing.assert_allclose(model.beta, [1.0, 1.7, NAN])
    expected = np.corrcoef(returns[:, 1], market)[0, 1]
    np.testing.assert_allclose(model.correlation, [1.0, expected, NAN])
    residual = np.std(other, ddof=1) * np.sqrt(365)
    np.testing.assert_allclose(model.residual_volatility, [0.0, residual, NAN], atol=1e-12)


def test_market_model_uses_only_common_days_and_needs_a_market_that_moves() -> None:
    market = noise(60, 1)[:, 0]
    market[:20] = NAN
    returns = noise(60, 1, seed=5)
    assert np.isnan(measures.market_model(returns, market, 45).beta).all()
    known = measures.market_model(returns, market, 40)
    expected = np.polyfit(market[20:], returns[20:, 0], 1)[0]
    np.testing.assert_allclose(known.beta, [expected])
    assert np.isnan(measures.market_model(returns, np.zeros(60), 40).correlation).all()


def test_highest_return_and_drawdown() -> None:
    close = np.array([[1.0, 5.0, NAN], [4.0, 6.0, NAN], [3.0, 7.0, 2.0], [1.0, NAN, 1.0]])
    np.testing.assert_allclose(measures.worst_drawdown(close, 2), [-0.75, 0.0, -0.5])
    np.testing.assert_allclose(measures.worst_drawdown(close, 3), [-0.75, 0.0, NAN])
    returns = log_returns(steady(close))
    np.testing.assert_allclose(measures.highest_return(returns, 2), [np.log(4), np.log(1.2), NAN])


def plain_variance_ratio(returns: Floats, q: int) -> float:
    count, mean = len(returns), returns.mean()
    sums = np.array([returns[end - q : end].sum() for end in range(q, count + 1)])
    long = ((sums - q * mean) ** 2).sum() / (q * (count - q + 1) * (1 - q / count))
    return float(long / (((returns - mean) ** 2).sum() / (count - 1)))


def test_variance_ratio_uses_the_unbroken_tail() -> None:
    returns = noise(60, 4)
    returns[9, 1] = NAN
    returns[-1, 2] = NAN
    returns[:, 3] = 0.0
    expected = [plain_variance_ratio(returns[:, 0], 5), plain_variance_ratio(returns[10:, 1], 5)]
    np.testing.assert_allclose(measures.variance_ratio(returns, 5, 45), [*expected, NAN, NAN])
    assert np.isnan(measures.variance_ratio(returns[:20], 5, 45)).all()


def _pearson(pair: Floats) -> float:
    return float(np.asarray(np.corrcoef(pair.T))[0, 1])


def test_correlation_after_removing_the_market() -> None:
    market = noise(60, 1)[:, 0]
    own = noise(60, 2, seed=11)
    shared = noise(60, 1, seed=12)[:, 0]
    one, two = market + own[:, 0], 2 * market + own[:, 1] + shared
    returns = np.stack([market, one, two, shared], axis=1)
    symbols = ("BTCUSDT", "AUSDT", "BUSDT", "CUSDT")
    daily = panel_of(returns, symbols)
    found = measures.correlations(daily, daily.symbols, RESIDUAL, 60)
    left = np.stack(
        [column - np.polyval(np.polyfit(market, column, 1), market) for column in returns.T[1:]]
    )
    np.testing.assert_allclose(found[1:, 1:], np.corrcoef(left), atol=1e-9)
    np.testing.assert_array_equal(found[0], [1.0, NAN, NAN, NAN])
    np.testing.assert_array_equal(found[:, 0], found[0])
    np.testing.assert_array_equal(np.diag(found), np.ones(4))
    raw = measures.correlations(daily, ("CUSDT", "AUSDT"), RAW, 60)
    np.testing.assert_allclose(raw, np.corrcoef(returns[:, [3, 1]].T), atol=1e-9)


def test_pairs_with_unequal_histories_are_correlated_over_their_common_rows() -> None:
    dice = np.random.default_rng(3)
    factor = dice.normal(0.0, 0.03, (59, 1))
    close = 10.0 * np.exp(np.cumsum(factor + dice.normal(0.0, 0.03, (59, 9)), axis=0))
    close[:20, 1] = np.nan  # listed late
    close[:35, 2] = np.nan  # later than that
    close[10:14, 3] = np.nan  # a gap
    close[::2, 4] = np.nan  # never two bars in a row
    close[:, 5] = 10.0  # never moved
    close[:, 6] = 1e6 / close[:, 0]  # the contrary of the first
    names = tuple(f"C{number}USDT" for number in range(9))
    times = np.arange(len(close), dtype=np.int64) * Interval.DAY.ms
    daily = Panel(Interval.DAY, names, times, close, close, close, close, close, close)
    found = measures.correlations(daily, names, RAW, 58, least=20)
    returns = log_returns(steady(close))
    for one in range(9):
        for other in range(9):
            both = np.isfinite(returns[:, one]) & np.isfinite(returns[:, other])
            pair = returns[both][:, [one, other]]
            if both.sum() < 20 or 5 in {one, other}:
                assert np.isnan(found[one, other]), (one, other)
            else:
                expected = np.asarray(np.corrcoef(pair.T))[0, 1]
                assert found[one, other] == pytest.approx(expected, abs=1e-12), (one, other)
    assert found[0, 6] == pytest.approx(-1.0)
    assert np.array_equal(found, found.T, equal_nan=True)


def test_correlation_is_unknown_rather_than_zero() -> None:
    returns = noise(60, 4)
    returns[:31, 2] = NAN  # 29 returns left
    returns[:, 3] = 2.0 * returns[:, 0]  # the market over again
    daily = panel_of(returns, ("BTCUSDT", "AUSDT", "YOUNGUSDT", "COPYUSDT"))
    wanted = ("AUSDT", "YOUNGUSDT", "COPYUSDT", "NOWHEREUSDT")
    found = measures.correlations(daily, wanted, RESIDUAL, 60)
    assert found[0, 0] == 1.0
    np.testing.assert_array_equal(np.isfinite(found).sum(), 1)
    raw = measures.correlations(daily, ("BTCUSDT", "COPYUSDT"), RAW, 60)
    np.testing.assert_allclose(raw, np.ones((2, 2)))


def test_thirty_days_are_thirty_returns() -> None:
    daily = panel_of(noise(40, 3), ("BTCUSDT", "AUSDT", "BUSDT"))
    assert np.isfinite(measures.correlations(daily, daily.symbols[1:], RESIDUAL, 30)).all()
    assert np.isnan(measures.correlations(daily, daily.symbols, RESIDUAL, 29)).all()


def test_without_a_market_there_is_no_residual() -> None:
    daily = panel_of(noise(40, 2), ("AUSDT", "BUSDT"))
    assert np.isnan(measures.correlations(daily, daily.symbols, RESIDUAL, 40)).all()
    assert np.isfinite(measures.correlations(daily, daily.symbols, RAW, 40)).all()


def test_common_rows_only() -> None:
    returns = noise(60, 2, seed=21)
    returns[:10, 0] = NAN
    returns[-10:, 1] = NAN
    daily = panel_of(returns, ("AUSDT", "BUSDT"))
    found = measures.correlations(daily, daily.symbols, RAW, 60)
    # the bar after a gap has no return either
    common = np.isfinite(log_returns(contiguous(daily))).all(axis=1)
    assert found[0, 1] == pytest.approx(_pearson(returns[common]), abs=1e-9)


@needs_daily_panel
def test_golden_btc() -> None:
    bars = perpetual("BTCUSDT")
    returns = log_returns(steady(bars["close"]))
    last = {name: values[-30:] for name, values in bars.items()}
    found = [
        measures.ewma_volatility(returns),
        measures.garman_klass(last["open"], last["high"], last["low"], last["close"], 30),
        measures.variance_ratio(returns, 5, 45),
    ]
    expected = [0.304646, 0.359575, 0.91823166]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=2e-6)
    amihud, _ = illiquidity(returns[-30:], bars["quote_volume"][-30:], 30)
    np.testing.assert_allclose(amihud * 1e6, [7.087315e-07], rtol=1e-5)


def test_the_market_has_pairs_only_on_the_raw_basis() -> None:
    assert measures.pair_applies("BTCUSDT", "AUSDT", RAW)
    assert not measures.pair_applies("BTCUSDT", "AUSDT", RESIDUAL)
    assert not measures.pair_applies("AUSDT", "BTCUSDT", RESIDUAL)
    assert measures.pair_applies("AUSDT", "BUSDT", RESIDUAL)
    assert measures.pair_applies("BTCUSDT", "BTCUSDT", RESIDUAL)
