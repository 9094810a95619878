"""Indicators along time: TA-Lib's values and warm-up, gaps, young listings, no look-ahead."""

from collections.abc import Callable

import numpy as np
import pytest

from app.market.domain.models import Floats
from app.scoring.domain import indicator_series
from tests.support.market_files import needs_daily_panel, perpetual

NAN = float("nan")


def walk(rows: int = 120, columns: int = 3, seed: int = 7) -> Floats:
    rng = np.random.default_rng(seed)
    return 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, (rows, columns)), axis=0))


def column(*values: float) -> Floats:
    return np.array(values, np.float64)[:, None]


# Every series as a function of closes alone, so that one table serves all properties.
SERIES: dict[str, Callable[[Floats], Floats]] = {
    "ema": lambda close: indicator_series.ema(close, 10),
    "wilder": lambda close: indicator_series.wilder(close, 10),
    "rsi": indicator_series.rsi,
    "atr": lambda close: indicator_series.atr(close * 1.01, close * 0.98, close),
    "macd": lambda close: indicator_series.macd(close)[0],
    "macd_signal": lambda close: indicator_series.macd(close)[1],
    "macd_histogram": lambda close: indicator_series.macd(close)[2],
    "macd_in_ranges": lambda c: indicator_series.macd_in_ranges(c * 1.01, c * 0.98, c),
    "bollinger_upper": lambda close: indicator_series.bollinger(close)[0],
    "bollinger_position": indicator_series.bollinger_position,
}
FIRST = {
    "ema": 9, "wilder": 9, "rsi": 14, "atr": 14, "macd": 33, "macd_signal": 33,
    "macd_histogram": 33, "macd_in_ranges": 33, "bollinger_upper": 19, "bollinger_position": 19,
}  # fmt: skip


@pytest.mark.parametrize("name", SERIES)
def test_first_value_stands_where_talib_has_it(name: str) -> None:
    known = np.isfinite(SERIES[name](walk()))
    assert not known[: FIRST[name]].any()
    assert known[FIRST[name] :].all()


@pytest.mark.parametrize("name", SERIES)
def test_later_bars_change_nothing(name: str) -> None:
    close = walk()
    for at in (5, 33, 34, 60, 118):
        np.testing.assert_array_equal(SERIES[name](close[: at + 1]), SERIES[name](close)[: at + 1])


@pytest.mark.parametrize("name", SERIES)
def test_a_young_listing_counts_from_its_own_first_bar(name: str) -> None:
    close = walk()
    young = close.copy()
    young[:50, 1] = NAN
    series = SERIES[name](young)
    assert np.isnan(series[:50, 1]).all()
    np.testing.assert_allclose(series[50:, 1], SERIES[name](close[50:, 1:2])[:, 0], rtol=1e-11)
    np.testing.assert_array_equal(series[:, [0, 2]], SERIES[name](close)[:, [0, 2]])


@pytest.mark.parametrize("name", SERIES)
def test_a_gap_is_skipped_and_stays_missing(name: str) -> None:
    close = walk()
    holed = close.copy()
    holed[[40, 41, 90], 0] = NAN
    series = SERIES[name](holed)
    assert np.isnan(series[[40, 41, 90], 0]).all()
    rest = np.delete(close[:, :1], [40, 41, 90], axis=0)
    np.testing.assert_allclose(
        np.delete(series[:, 0], [40, 41, 90]), SERIES[name](rest)[:, 0], rtol=1e-11
    )


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_too_few_bars_give_nothing(name: str, rows: int) -> None:
    series = SERIES[name](walk(rows))
    assert series.shape == (rows, 3)
    assert np.isnan(series).all()


def test_ema_and_wilder_by_hand() -> None:
    values = column(1.0, 2.0, 3.0, 7.0)
    np.testing.assert_allclose(indicator_series.ema(values, 3)[:, 0], [NAN, NAN, 2.0, 4.5])
    np.testing.assert_allclose(
        indicator_series.wilder(values, 3)[:, 0], [NAN, NAN, 2.0, 11.0 / 3.0]
    )


def test_atr_by_hand() -> None:
    high, low, close = column(11, 13, 12, 20), column(9, 10, 11, 15), column(10, 12, 11, 18)
    reach = indicator_series.atr(high, low, close, 2)[:, 0]  # true ranges 3, 1, 9
    np.testing.assert_allclose(reach, [NAN, NAN, 2.0, 5.5])


@pytest.mark.parametrize(
    ("step", "expected"), [(1.0, 100.0), (-1.0, 0.0), (0.0, 50.0)], ids=["up", "down", "flat"]
)
def test_rsi_of_one_way_markets(step: float, expected: float) -> None:
    close = 100.0 + step * np.arange(30.0)[:, None]
    np.testing.assert_array_equal(indicator_series.rsi(close)[14:, 0], np.full(16, expected))


def test_a_market_that_stands_still_has_no_band_and_no_range() -> None:
    close = np.full((40, 1), 5.0)
    assert np.isnan(indicator_series.bollinger_position(close)).all()
    assert np.isnan(indicator_series.macd_in_ranges(close, close, close)).all()


def test_macd_seeds_the_fast_mean_with_the_last_twelve_of_twenty_six() -> None:
    close = walk(60, 1)
    prices = close[:, 0]
    fast, slow = prices[14:26].mean(), prices[:26].mean()
    line = [fast - slow]
    for price in prices[26:]:
        fast += (price - fast) * 2 / 13
        slow += (price - slow) * 2 / 27
        line.append(fast - slow)
    signal = float(np.mean(line[:9]))
    np.testing.assert_allclose(indicator_series.macd(close)[0][33:, 0], line[8:])
    for offset, value in enumerate(line[9:], start=34):
        signal += (value - signal) * 2 / 10
        assert indicator_series.macd(close)[1][offset, 0] == pytest.approx(signal)


def sawtooth() -> tuple[Floats, Floats, Floats, Floats]:
    """Sixty bars anybody can write down: high, low, close, volume."""
    n = np.arange(60.0)[:, None]
    close = 100.0 + n * 37 % 23 - n * 11 % 7 + n / 4
    return close + 1 + n % 3, close - 2 + n % 2 / 2, close, 1000.0 + n * 53 % 97


# At bar 40 and at the last one, as TA-Lib gives them.
SAWTOOTH = {
    "rsi": (49.4794738035407, 54.532587532506426),
    "atr": (12.3900514887607, 11.433113803062529),
    "macd": (1.6365096884473331, 2.2905874483568596),
    "signal": (1.9404548495523977, 1.7222250722919359),
    "histogram": (-0.30394516110506453, 0.5683623760649237),
    "upper": (128.31162773779243, 133.83280442717162),
    "middle": (115.325, 120.375),
    "lower": (102.33837226220757, 106.91719557282838),
    "flow": (-7361.0, -10621.0),
}


def test_golden_sawtooth() -> None:
    high, low, close, _ = sawtooth()
    line, signal, histogram = indicator_series.macd(close)
    upper, middle, lower = indicator_series.bollinger(close)
    found = {
        "rsi": indicator_series.rsi(close),
        "atr": indicator_series.atr(high, low, close),
        "macd": line, "signal": signal, "histogram": histogram,
        "upper": upper, "middle": middle, "lower": lower,
    }  # fmt: skip
    for name, figure in found.items():
        np.testing.assert_allclose(figure[[40, 59], 0], SAWTOOTH[name], rtol=1e-9, err_msg=name)


@needs_daily_panel
def test_golden_btc() -> None:
    bars = perpetual("BTCUSDT")
    high, low, close = bars["high"], bars["low"], bars["close"]
    line, signal, histogram = indicator_series.macd(close)
    upper, middle, lower = indicator_series.bollinger(close)
    found = [
        figure[-1, 0]
        for figure in (
            indicator_series.rsi(close), indicator_series.atr(high, low, close),
            line, signal, histogram,
            upper, middle, lower,
        )
    ]  # fmt: skip
    expected = [
        54.512426, 2648.464542, 585.615527, 310.193873, 275.421654,
        109464.269693, 105661.415000, 101858.560307,
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    position = indicator_series.bollinger_position(close)[-1, 0]
    assert position == pytest.approx((close[-1, 0] - lower[-1, 0]) / (upper[-1, 0] - lower[-1, 0]))
    assert indicator_series.macd_in_ranges(high, low, close)[-1, 0] == pytest.approx(
        275.421654 / 2648.464542, rel=1e-6
    )
