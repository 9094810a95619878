"""The compiled recursion, the series of indicators and the closed form agree at every bar."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.domain.models import Floats
from app.research.domain.kernels import (
    ADD_BARS,
    ATR,
    BAND_POSITION,
    HISTOGRAM,
    INDICATORS,
    RANK_ROWS,
    RSI,
    WIDTH,
    Kernel,
    add_bars,
    initial_state,
    macd_in_ranges,
    normal_scores,
    rank_rows,
)
from app.scoring.domain import indicator_series as plain
from app.scoring.domain.factors import rank_to_normal, rounded_significant
from app.scoring.domain.price_factors import LastBarIndicators, indicators_at_last_bar
from tests.scoring.domain.test_indicator_series import SAWTOOTH, sawtooth
from tests.support.market_files import (
    BARS,
    DAILY_PANEL,
    HOURLY_PANEL,
    needs_daily_panel,
    perpetual,
    whole_panel,
)

pytestmark = pytest.mark.xdist_group("kernels")  # compiled code of one process serves all

NAN = float("nan")
Bars = tuple[Floats, Floats, Floats, Floats]


def bars(rows: int, symbols: int, seed: int = 7) -> Bars:
    """High, low, close and volume with young listings, gaps, a dead coin and one that stood."""
    dice = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(dice.normal(0.0, 0.02, (rows, symbols)), axis=0))
    close[:, 0] = 10.0
    high, low = close * dice.uniform(1.0, 1.02, close.shape), close * dice.uniform(0.98, 1.0)
    high[:, 0] = low[:, 0] = 10.0
    volume = dice.uniform(1.0, 9.0, close.shape)
    lost = dice.random(close.shape) < 0.03
    lost[: rows // 2, 1] = True
    lost[rows // 3 :, 2] = True
    lost[:, 3] = True
    lost[:, 4 : symbols // 2] = lost[:, 64:] = False
    lost[40::7, 65:66] = True  # gaps among those that have bars enough
    for field in (high, low, close, volume):
        field[lost] = NAN
    return high, low, close, volume


def columns(field: Bars, first: int, end: int, *, without: int | None = None) -> Bars:
    """Some of the symbols, without one of the rows if that is wanted."""
    kept = np.arange(len(field[0])) != without
    high, low, close, volume = (np.ascontiguousarray(one[kept, first:end]) for one in field)
    return high, low, close, volume


def by_columns(high: Floats, low: Floats, close: Floats, volume: Floats) -> Floats:
    """(4, T, N) of the series, where a symbol has a bar."""
    out = np.empty((INDICATORS, *close.shape))
    out[RSI], out[ATR] = plain.rsi(close), plain.atr(high, low, close)
    out[HISTOGRAM], out[BAND_POSITION] = plain.macd(close)[2], plain.bollinger_position(close)
    return np.where(np.isfinite(close), out, NAN)


def every_bar(
    add: Callable[..., None], high: Floats, low: Floats, close: Floats, volume: Floats
) -> Floats:
    out = np.zeros((INDICATORS, *close.shape))
    add(initial_state(close.shape[1]), high, low, close, volume, out)
    return out


def last_of(every: Floats, close: Floats) -> LastBarIndicators:
    """The values of (4, T, N) at each symbol's own last bar."""
    is_bar = np.isfinite(close)
    rows = len(close) - 1 - np.argmax(is_bar[::-1], axis=0)
    newest = np.take_along_axis(every, rows[None, None, :], axis=1)[:, 0]
    newest = np.where(is_bar.any(axis=0), newest, NAN)
    return LastBarIndicators(newest[RSI], macd_in_ranges(newest), newest[BAND_POSITION])


NAMES = ("rsi", "macd_in_ranges", "band_position")


def same(found: Floats, wanted: Floats, tolerance: float) -> None:
    """Relative to the size of each kind of number: a histogram is a difference of prices."""
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    for one, other in zip(found, wanted, strict=True):
        scale = np.nanmax(np.abs(other), initial=1e-300) if np.isfinite(other).any() else 1.0
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("seed", range(3))
def test_each_indicator_of_the_kernel_is_that_of_the_series_at_every_bar(seed: int) -> None:
    field = bars(150, 70, seed)
    same(every_bar(ADD_BARS, *field), by_columns(*field), 1e-10)
    grown = columns(field, 64, 70)  # no column begins late, but one lacks bars
    same(every_bar(ADD_BARS, *grown), by_columns(*grown), 1e-10)


@pytest.mark.parametrize("still", [19, 20, 99, 100, 140])
def test_closes_decide_whether_a_price_stands_still(still: int) -> None:
    """Rounding said .25, .75 or nothing of a price that had not moved."""
    high, low, close, volume = (one.copy() for one in columns(bars(300, 70), 64, 70))
    for column, price in enumerate((0.1, 1.1, 7.3, 0.0123, 33.3, 1e-7)):
        known = np.flatnonzero(np.isfinite(close[:, column]))[-still:]
        close[known, column] = low[known, column] = high[known, column] = price
    every = every_bar(ADD_BARS, high, low, close, volume)
    same(every, by_columns(high, low, close, volume), 1e-9)
    newest = indicators_at_last_bar(high, low, close, volume)
    for found in (newest, last_of(every, close)):
        assert np.isnan(found.band_position).all() == (still >= 20)
        assert np.isnan(found.macd_in_ranges).all() == (still >= 100)
        assert (found.rsi != 50.0).all(), "it has moved before"
    flat = np.full((300, 6), 0.1)
    never = every_bar(ADD_BARS, flat, flat, flat, flat)
    np.testing.assert_array_equal(never[RSI, -1], np.full(6, 50.0))
    np.testing.assert_array_equal(plain.rsi(flat)[-1], np.full(6, 50.0))
    np.testing.assert_array_equal(
        indicators_at_last_bar(flat, flat, flat, flat).rsi, np.full(6, 50.0)
    )


def test_the_source_of_the_kernel_gives_what_its_machine_code_gives() -> None:
    everyone = bars(60, 66)
    for first, end in ((0, 9), (64, 65), (65, 66)):  # with gaps, without any, with few
        field = columns(everyone, first, end)
        with np.errstate(all="ignore"):
            every = every_bar(add_bars, *field)
        np.testing.assert_allclose(every, every_bar(ADD_BARS, *field), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("lost", [NAN, np.inf])
@pytest.mark.parametrize("figure", range(4), ids=["high", "low", "close", "volume"])
@pytest.mark.parametrize("row", [0, 36, 67, 149])
def test_a_row_that_lacks_a_figure_is_no_bar(lost: float, figure: int, row: int) -> None:
    field = columns(bars(150, 70), 66, 70)
    field[figure][row, 1] = lost
    newest = indicators_at_last_bar(*field)
    every = every_bar(ADD_BARS, *field)
    never = columns(field, 1, 2, without=row)
    wanted, others = indicators_at_last_bar(*never), indicators_at_last_bar(*columns(field, 2, 4))
    assert np.isnan(every[:, row, 1]).all()
    rest = np.delete(every[:, :, 1:2], row, axis=1)
    np.testing.assert_allclose(rest, every_bar(ADD_BARS, *never), rtol=1e-12)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(newest, name)[1:2], getattr(wanted, name))
        np.testing.assert_array_equal(getattr(newest, name)[2:], getattr(others, name))


@pytest.mark.parametrize("symbols", [90, 97, WIDTH + 6])
def test_each_symbol_has_the_values_that_it_has_alone(symbols: int) -> None:
    """Sums have one order, however many symbols stand beside: also at the ends of blocks."""
    field = bars(90, symbols)
    together, every = indicators_at_last_bar(*field), every_bar(ADD_BARS, *field)
    for first, end in ((0, 6), (2, 3), (60, 80), (symbols - 1, symbols), (symbols - 8, symbols)):
        few = columns(field, first, end)
        alone = indicators_at_last_bar(*few)
        for name in NAMES:
            np.testing.assert_array_equal(
                getattr(alone, name), getattr(together, name)[first:end], err_msg=name
            )
        np.testing.assert_array_equal(every_bar(ADD_BARS, *few), every[:, :, first:end])


def test_one_way_markets_are_at_the_ends_and_a_still_one_in_the_middle() -> None:
    steps = np.linspace(1.0, 1.9, 90)[:, None]
    close = 10.0 * np.exp(np.cumsum(steps * np.array([0.01, -0.01, 0.0]), axis=0))
    found = indicators_at_last_bar(close, close, close, close)
    np.testing.assert_array_equal(found.rsi, [100.0, 0.0, 50.0])
    np.testing.assert_array_equal(
        every_bar(ADD_BARS, close, close, close, close)[RSI, -1], [100.0, 0.0, 50.0]
    )


@pytest.mark.parametrize("rows", [0, 1, 2, 14])
def test_few_bars_and_no_symbols_are_unknown_not_an_error(rows: int) -> None:
    few = np.ones((rows, 3))
    for symbols in (3, 1, 0):
        found = indicators_at_last_bar(*(few[:, :symbols] for _ in range(4)))
        for name in NAMES:
            assert getattr(found, name).shape == (symbols,)
            assert np.isnan(getattr(found, name)).all()


def panel_of(rows: int, symbols: int, seed: int) -> Bars:
    """Walks of every price scale with flat, young, gapped, dead and late columns."""
    dice = np.random.default_rng(seed)
    scale = 10.0 ** dice.integers(-5, 5, symbols)
    steps = dice.normal(0.0, 0.01, (rows, symbols)) * (dice.random((rows, symbols)) < 0.8)
    for column in np.flatnonzero(dice.random(symbols) < 0.2):
        steps[rows - int(dice.integers(1, rows + 1)) :, column] = 0.0  # flat at the end
    close: Floats = np.asarray(scale * np.exp(np.cumsum(steps, axis=0)), np.float64)
    high: Floats = close * dice.uniform(1.0, 1.01, close.shape)
    low: Floats = close * dice.uniform(0.99, 1.0, close.shape)
    volume: Floats = dice.uniform(1.0, 9.0, close.shape)
    lost = dice.random(close.shape) < 0.05 * (dice.random(symbols) < 0.3)
    for column in np.flatnonzero(dice.random(symbols) < 0.3):
        lost[: int(dice.integers(0, rows + 1)), column] = True  # young
    for column in np.flatnonzero(dice.random(symbols) < 0.1):
        lost[rows - int(dice.integers(0, rows)) :, column] = True  # its last bars are late
    for field in (high, low, close, volume):
        field[lost] = NAN
    return high, low, close, volume


def require_equal(high: Floats, low: Floats, close: Floats, volume: Floats) -> None:
    """Same missing values, same ranks, and normal scores equal to six decimals."""
    found = indicators_at_last_bar(high, low, close, volume)
    wanted = last_of(every_bar(ADD_BARS, high, low, close, volume), close)
    for name in NAMES:
        one, other = getattr(found, name), getattr(wanted, name)
        np.testing.assert_array_equal(np.isfinite(one), np.isfinite(other), err_msg=name)
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-11, err_msg=name)
        ranks, wanted_ranks = (
            rank_to_normal(rounded_significant(values, 8)) for values in (one, other)
        )
        np.testing.assert_array_equal(ranks, wanted_ranks, err_msg=name)


@settings(max_examples=60)
@given(st.integers(1, 300), st.integers(1, 130), st.integers(0, 2**32))
def test_the_closed_form_ranks_as_the_recursion(rows: int, symbols: int, seed: int) -> None:
    require_equal(*panel_of(rows, symbols, seed))


@needs_daily_panel
@pytest.mark.parametrize("file", [DAILY_PANEL, HOURLY_PANEL], ids=["days", "hours"])
def test_the_closed_form_ranks_real_markets_as_the_recursion(file: Path) -> None:
    known = whole_panel(file)
    for end in range(len(known["close"]), 100, -700):
        field = (np.ascontiguousarray(known[name][max(end - 500, 0) : end]) for name in BARS)
        require_equal(*field)


def golden(known: LastBarIndicators, expected: list[float], tolerance: float) -> None:
    found = [getattr(known, name)[0] for name in NAMES]
    np.testing.assert_allclose(found, expected, rtol=tolerance)


def test_golden_sawtooth_in_closed_form() -> None:
    field = sawtooth()
    close, known = field[2], {name: last for name, (_, last) in SAWTOOTH.items()}
    position = (close[-1, 0] - known["lower"]) / (known["upper"] - known["lower"])
    expected = [known["rsi"], known["histogram"] / known["atr"], position]
    golden(indicators_at_last_bar(*field), expected, 1e-9)
    golden(last_of(every_bar(ADD_BARS, *field), close), expected, 1e-9)


@needs_daily_panel
def test_golden_btc_in_closed_form() -> None:
    known = perpetual("BTCUSDT")
    # Writable copies, as panels are: the kernel would be compiled anew for others.
    field = tuple(known[one].copy() for one in ("high", "low", "close", "volume"))
    lower, upper = 101858.560307, 109464.269693
    position = (field[2][-1, 0] - lower) / (upper - lower)
    expected = [54.512426, 275.421654 / 2648.464542, position]
    golden(indicators_at_last_bar(*field), expected, 1e-6)
    golden(last_of(every_bar(ADD_BARS, *field), field[2]), expected, 1e-6)


@pytest.mark.parametrize("of", [rank_rows, RANK_ROWS])
def test_ranks_of_rows_are_those_of_each_row_alone(of: Kernel[..., None]) -> None:
    dice = np.random.default_rng(5)
    values = np.round(dice.normal(size=(12, 30)), 1)  # many ties
    values[dice.random(values.shape) < 0.2] = NAN
    values[3] = NAN
    values[4], values[5, 2] = 1.0, np.inf
    out = np.zeros(values.shape)
    of(values, normal_scores(30), out)
    for row, wanted in zip(out, values, strict=True):
        np.testing.assert_allclose(row, rank_to_normal(wanted), rtol=0, atol=1e-12)
