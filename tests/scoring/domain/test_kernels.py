"""Compiled indicators, correlations and ranks say what the plain functions say."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.market.domain.models import Floats
from app.research.domain.correlation_kernel import MEAN_CORRELATION, mean_correlation
from app.research.domain.rank_kernel import RANKED_ROWS, normal_scores, ranked_rows
from app.research.domain.ring import Ring
from app.scoring.domain import indicators as plain
from app.scoring.domain.cross_section import rank_to_normal
from app.scoring.domain.kernels import indicators as kernel
from app.scoring.domain.kernels.compilation import Kernel
from app.scoring.domain.kernels.last_bar import at_last_bar, histogram_in_ranges
from tests.scoring.domain.test_indicators import SAWTOOTH, sawtooth
from tests.support.market_files import needs_daily_panel, perpetual

pytestmark = pytest.mark.xdist_group("kernels")  # what one process has compiled is there for all

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


def returns_of(close: Floats) -> Floats:
    """Log returns, with an empty first row in place of the one that nobody has."""
    return np.concatenate([np.full((1, close.shape[1]), NAN), np.diff(np.log(close), axis=0)])


def by_columns(high: Floats, low: Floats, close: Floats, volume: Floats) -> Floats:
    """(9, T, N) of the plain functions, where a symbol has a bar."""
    line, signal, histogram = plain.macd(close)
    _, middle, _ = plain.bollinger(close)
    position = plain.bollinger_position(close)
    out = np.array([
        plain.rsi(close), line, signal, histogram, plain.atr(high, low, close), position, middle,
        flow(close, volume), volatility(close),
    ])  # fmt: skip
    return np.where(np.isfinite(close), out, NAN)


def flow(close: Floats, volume: Floats) -> Floats:
    out = np.full(close.shape, NAN)
    for column in range(close.shape[1]):
        own = np.flatnonzero(np.isfinite(close[:, column]))
        signs = np.sign(np.diff(close[own, column], prepend=0.0))
        out[own, column] = np.cumsum(signs * volume[own, column])
    return out


def volatility(close: Floats) -> Floats:
    returns = returns_of(close)
    out = np.full(close.shape, NAN)
    for row in range(len(close)):
        for column in range(close.shape[1]):
            window = returns[max(row - 23, 0) : row + 1, column]
            known = window[np.isfinite(window)]
            if len(known) >= 18:
                out[row, column] = known.std(ddof=1)
    return out


def every_bar(
    take: Callable[..., None], high: Floats, low: Floats, close: Floats, volume: Floats
) -> Floats:
    out = np.zeros((kernel.INDICATORS, *close.shape))
    state = kernel.fresh_state(close.shape[1])
    take(state, high, low, close, volume, returns_of(close), out, True)
    return out


def same(found: Floats, wanted: Floats, tolerance: float) -> None:
    """Relative to the size of each kind of number: a histogram is a difference of prices."""
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    for one, other in zip(found, wanted, strict=True):
        scale = np.nanmax(np.abs(other), initial=1e-300) if np.isfinite(other).any() else 1.0
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("seed", range(3))
def test_each_of_nine_indicators_is_the_plain_one_at_every_bar(seed: int) -> None:
    field = bars(150, 70, seed)
    same(every_bar(kernel.TAKE, *field), by_columns(*field), 1e-10)
    grown = columns(field, 64, 70)  # nobody begins late, but one lacks bars
    same(every_bar(kernel.TAKE, *grown), by_columns(*grown), 1e-10)


@pytest.mark.parametrize("still", [19, 20, 99, 100, 140])
def test_both_decide_on_closes_whether_a_price_stands_still(still: int) -> None:
    """Rounding said .25, .75 or nothing of a price that had not moved."""
    high, low, close, volume = (one.copy() for one in columns(bars(300, 70), 64, 70))
    for column, price in enumerate((0.1, 1.1, 7.3, 0.0123, 33.3, 1e-7)):
        known = np.flatnonzero(np.isfinite(close[:, column]))[-still:]
        close[known, column] = low[known, column] = high[known, column] = price
    told = every_bar(kernel.TAKE, high, low, close, volume)
    same(told, by_columns(high, low, close, volume), 1e-9)
    newest = at_last_bar(high, low, close, volume, returns_of(close))
    assert np.isnan(newest[kernel.BAND_POSITION]).all() == (still >= 20)
    assert np.isnan(newest[kernel.HISTOGRAM]).all() == (still >= 100)
    assert np.isnan(histogram_in_ranges(newest)).all() == (still >= 100)
    assert (newest[kernel.RSI] != 50.0).all(), "it has moved before"
    flat = np.full((300, 6), 0.1)
    never = at_last_bar(flat, flat, flat, flat, returns_of(flat))
    np.testing.assert_array_equal(never[kernel.RSI], np.full(6, 50.0))
    np.testing.assert_array_equal(plain.rsi(flat)[-1], np.full(6, 50.0))


def test_the_source_of_the_kernel_says_what_its_machine_code_says() -> None:
    everyone = bars(60, 66)
    for first, end in ((0, 9), (64, 65), (65, 66)):  # with gaps, without any, with few
        field = columns(everyone, first, end)
        symbols = field[0].shape[1]
        newest = np.zeros((kernel.INDICATORS, 1, symbols))
        with np.errstate(all="ignore"):
            told = every_bar(kernel.take, *field)
            kernel.take(kernel.fresh_state(symbols), *field, returns_of(field[2]), newest, False)
        np.testing.assert_allclose(told, every_bar(kernel.TAKE, *field), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(
            newest[:, 0], at_last_bar(*field, returns_of(field[2])), rtol=1e-13, atol=1e-13
        )


@pytest.mark.parametrize("lost", [NAN, np.inf])
@pytest.mark.parametrize("figure", range(4), ids=["high", "low", "close", "volume"])
@pytest.mark.parametrize("row", [36, 67])
def test_a_figure_that_is_lost_among_rows_taken_together_is_no_bar(
    lost: float, figure: int, row: int
) -> None:
    """Rows are taken many at a time as long as nobody lacks one: no gap may go in unseen."""
    field = columns(bars(150, 70), 66, 70)
    field[figure][row, 1] = lost
    newest = at_last_bar(*field, returns_of(field[2]))[: kernel.VOLATILITY]
    never = columns(field, 1, 2, without=row)
    wanted = at_last_bar(*never, returns_of(never[2]))[: kernel.VOLATILITY]
    np.testing.assert_allclose(newest[:, 1:2], wanted, rtol=1e-12)
    others = columns(field, 2, 4)
    alone = at_last_bar(*others, returns_of(others[2]))[: kernel.VOLATILITY]
    np.testing.assert_array_equal(newest[:, 2:], alone)


def test_symbols_of_more_than_one_block_have_the_values_that_they_have_alone() -> None:
    field = bars(90, kernel.WIDTH + 6)
    together = at_last_bar(*field, returns_of(field[2]))
    for first, end in ((0, 6), (60, 80), (kernel.WIDTH - 2, kernel.WIDTH + 6)):
        few = columns(field, first, end)
        np.testing.assert_array_equal(at_last_bar(*few, returns_of(few[2])), together[:, first:end])


def test_what_is_told_at_the_end_is_of_each_symbols_own_last_bar() -> None:
    field = bars(120, 9)
    every = every_bar(kernel.TAKE, *field)
    newest = at_last_bar(*field, returns_of(field[2]))
    for column in range(9):
        own = np.flatnonzero(np.isfinite(field[2][:, column]))
        last = own[-1] if len(own) else -1
        # The volatility is of the last rows, and no longer of those before its own last bar.
        wanted, found = (
            every[: kernel.VOLATILITY, last, column],
            newest[: kernel.VOLATILITY, column],
        )
        np.testing.assert_array_equal(found, wanted)


def test_who_only_rose_is_at_100_who_only_fell_at_0_and_who_stood_at_50() -> None:
    steps = np.linspace(1.0, 1.9, 90)[:, None]
    close = 10.0 * np.exp(np.cumsum(steps * np.array([0.01, -0.01, 0.0]), axis=0))
    told = at_last_bar(close, close, close, close, returns_of(close))
    np.testing.assert_array_equal(told[kernel.RSI], [100.0, 0.0, 50.0])


def test_no_bars_and_no_symbols_are_unknown_not_an_error() -> None:
    nothing = np.zeros((0, 3))
    told = at_last_bar(nothing, nothing, nothing, nothing, nothing)
    assert told.shape == (9, 3)
    assert np.isnan(told).all()
    nobody = np.zeros((5, 0))
    assert at_last_bar(nobody, nobody, nobody, nobody, nobody).shape == (9, 0)


@settings(max_examples=25)
@given(
    st.integers(1, 130), st.integers(5, 70), st.integers(1, 90), st.integers(0, 2**32), st.data()
)
def test_a_bar_at_a_time_is_the_same_as_all_at_once_after_any_number_of_candles(
    rows: int, symbols: int, capacity: int, seed: int, data: st.DataObject
) -> None:
    high, low, close, volume = bars(rows, symbols, seed)
    ring = Ring(symbols, capacity)
    asked = data.draw(st.integers(0, rows - 1))
    for row in range(rows):
        told = ring.close_bar(high[row], low[row], close[row], volume[row])
        if row in {asked, rows - 1}:
            end = slice(row + 1)
            whole = at_last_bar(
                high[end], low[end], close[end], volume[end], returns_of(close[end])
            )
            np.testing.assert_allclose(told, whole, rtol=1e-12, atol=1e-12)
            first = max(row + 1 - capacity, 1)
            wanted = np.full(symbols, NAN)
            if row + 1 - first > 1:
                MEAN_CORRELATION(returns_of(close)[first : row + 1], wanted)
            np.testing.assert_allclose(ring.mean_correlation(), wanted, rtol=1e-9, atol=1e-12)


def test_golden_sawtooth_from_the_compiled_kernel() -> None:
    high, low, close, volume = sawtooth()
    told = at_last_bar(high, low, close, volume, returns_of(close))[:, 0]
    known = {name: last for name, (_, last) in SAWTOOTH.items()}
    expected = [known[one] for one in ("rsi", "macd", "signal", "histogram", "atr")]
    position = (close[-1, 0] - known["lower"]) / (known["upper"] - known["lower"])
    expected += [position, known["middle"], known["flow"]]
    np.testing.assert_allclose(told[: kernel.VOLATILITY], expected, rtol=1e-9)


@needs_daily_panel
def test_golden_btc_from_the_compiled_kernel() -> None:
    known = perpetual("BTCUSDT")
    # Writable copies, as panels are: the kernel would be compiled anew for others.
    high, low, close, volume = (known[one].copy() for one in ("high", "low", "close", "volume"))
    told = at_last_bar(high, low, close, volume, returns_of(close))[:, 0]
    lower, upper = 101858.560307, 109464.269693
    expected = [
        54.512426, 585.615527, 310.193873, 275.421654, 2648.464542,
        (close[-1, 0] - lower) / (upper - lower), 105661.415, 4345221.914,
    ]  # fmt: skip
    np.testing.assert_allclose(told[: kernel.VOLATILITY], expected, rtol=1e-6)


def matrix_mean(returns: Floats) -> Floats:
    """Mean of each row of the correlation matrix of the whole columns, without its diagonal."""
    out = np.full(returns.shape[1], NAN)
    whole = np.flatnonzero(np.isfinite(returns).all(axis=0) & (np.ptp(returns, axis=0) > 0.0))
    if len(whole) > 1:
        pairs = np.corrcoef(returns[:, whole].T)
        out[whole] = (pairs.sum(axis=1) - 1.0) / (len(whole) - 1)
    return out


def correlation(of: Callable[[Floats, Floats], None], returns: Floats) -> Floats:
    out = np.zeros(returns.shape[1])
    of(returns, out)
    return out


@pytest.mark.parametrize(("rows", "symbols"), [(61, 7), (62, 70), (63, 620)])
def test_mean_correlation_is_that_of_the_matrix_without_those_that_lack_a_return(
    rows: int, symbols: int
) -> None:
    """The last of them in two blocks of symbols."""
    returns = np.random.default_rng(symbols).normal(0.0, 0.01, (rows, symbols))
    returns += np.random.default_rng(1).normal(0.0, 0.01, (rows, 1))
    returns[3, 1], returns[:, 2], returns[:, 4] = NAN, 0.0, 0.001
    returns[0, 5] = 5.0  # the number that sums are about may be far from all others
    wanted = matrix_mean(np.where(np.arange(symbols) == 4, 0.0, returns))
    assert np.isnan(wanted[[1, 2, 4]]).all()
    np.testing.assert_allclose(correlation(MEAN_CORRELATION, returns), wanted, rtol=1e-12)
    if symbols < 100:
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(correlation(mean_correlation, returns), wanted, rtol=1e-12)


def test_nobody_correlates_with_himself_alone() -> None:
    returns = np.random.default_rng(3).normal(size=(40, 2))
    returns[5, 1] = NAN
    assert np.isnan(correlation(MEAN_CORRELATION, returns)).all()


@pytest.mark.parametrize("of", [ranked_rows, RANKED_ROWS])
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
