"""Panels hold closed bars only; inputs forget what was not yet known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.configuration.domain.sections import Source
from app.market.domain.models import CandleSeries, Floats, Interval
from app.market.domain.panel import (
    Panel,
    coverage_since_start,
    forward_fill,
    has_data,
    has_fresh_data,
    without_future,
)
from tests.support.scoring_inputs import AS_OF_MS, make_inputs

HOUR = Interval.HOUR.ms


def series(*opened_h: float) -> CandleSeries:
    times = np.array([int(hour * HOUR) for hour in opened_h], dtype=np.int64)
    prices = np.arange(1.0, len(times) + 1.0)
    return CandleSeries(times, prices, prices, prices, prices, prices, prices)


def test_a_running_bar_never_enters() -> None:
    stored = {"AUSDT": series(7, 8, 9, 10), "BUSDT": series(8, 9.5), "CUSDT": series()}
    symbols = ("BUSDT", "AUSDT", "CUSDT", "DUSDT")
    panel = Panel.from_series(stored, symbols, Interval.HOUR, 10 * HOUR + HOUR // 2, 3)
    np.testing.assert_array_equal(panel.opened_ms, [7 * HOUR, 8 * HOUR, 9 * HOUR])
    nan = np.nan
    np.testing.assert_array_equal(
        panel.close, [[nan, 1, nan, nan], [1, 2, nan, nan], [nan, 3, nan, nan]]
    )


def test_known_at_keeps_what_is_known_and_nothing_else() -> None:
    inputs = make_inputs(3)
    same = without_future(inputs)
    assert same.daily is inputs.daily
    earlier = without_future(replace(inputs, as_of_ms=AS_OF_MS - 2 * Interval.DAY.ms))
    assert len(earlier.daily.close) == len(inputs.daily.close) - 2
    assert len(earlier.hourly.opened_ms) == len(inputs.hourly.opened_ms) - 48
    assert all(f.settled_ms <= earlier.as_of_ms for each in earlier.funding for f in each)
    assert (earlier.open_interest_ms <= earlier.as_of_ms).all()
    assert len(earlier.open_interest) == len(earlier.open_interest_ms)
    assert len(earlier.open_interest) < len(inputs.open_interest)


def test_inputs_refuse_panels_of_other_symbols_and_unknown_ages() -> None:
    inputs = make_inputs(3)
    with pytest.raises(ValueError, match="same order"):
        replace(inputs, symbols=tuple(reversed(inputs.symbols)))
    ages: dict[Source, Floats] = dict(inputs.ages_s)
    del ages[Source.BOOKS]
    with pytest.raises(ValueError, match="every source"):
        replace(inputs, ages_s=ages)
    with pytest.raises(ValueError, match="every source"):
        replace(inputs, half_lives_s={})


def test_presence_and_freshness_are_told_per_symbol() -> None:
    inputs = make_inputs(3)
    bid = inputs.bid.copy()
    bid[1] = np.nan
    np.testing.assert_array_equal(has_data(replace(inputs, bid=bid), Source.TICKERS), [1, 0, 1])
    ages = {**inputs.ages_s, Source.TICKERS: np.array([180.0, 180.1, np.nan])}
    np.testing.assert_array_equal(
        has_fresh_data(replace(inputs, ages_s=ages), Source.TICKERS), [1, 0, 0]
    )


def test_an_age_is_compared_with_its_limit_in_millionths() -> None:
    """The sum of 0.1 and 0.2 is above 0.3 in its last bit."""
    inputs = make_inputs(3)
    ages = {**inputs.ages_s, Source.TICKERS: np.array([0.1 + 0.2, 0.300002, np.inf])}
    limits = {**inputs.half_lives_s, Source.TICKERS: 0.3}
    known = has_fresh_data(replace(inputs, ages_s=ages, half_lives_s=limits), Source.TICKERS)
    np.testing.assert_array_equal(known, [1, 0, 0])


def test_D05_short_gaps_are_flat_bars_without_volume_and_longer_ones_stay() -> None:
    stored = {
        "AUSDT": series(2, 3, 9, 10, 17, 18),  # gaps of five and of six hours
        "BUSDT": series(*range(4, 19)),  # listed later
        "CUSDT": series(),
    }
    panel = Panel.from_series(stored, tuple(stored), Interval.HOUR, 20 * HOUR, 20)
    whole, synthetic = forward_fill(panel)
    assert np.flatnonzero(synthetic[:, 0]).tolist() == [4, 5, 6, 7, 8]
    assert not synthetic[:, 1:].any()
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(whole, name)[4:9, 0], [2.0] * 5)
    for name in ("volume", "turnover"):
        np.testing.assert_array_equal(getattr(whole, name)[4:9, 0], [0.0] * 5)
    assert np.isnan(whole.close[11:17, 0]).all(), "six hours are not bridged"
    assert np.isnan(whole.close[:2, 0]).all(), "nothing is known before the first bar"
    assert np.isnan(whole.close[19, 0]), "nothing is known after the last bar"
    np.testing.assert_array_equal(panel.close[4:9, 0], [np.nan] * 5)
    np.testing.assert_allclose(coverage_since_start(panel), [6 / 18, 15 / 16, np.nan])
    assert forward_fill(whole)[0] is whole


def test_a_book_stamped_after_the_moment_is_not_known_at_it() -> None:
    inputs = make_inputs(3)
    late = [replace(book, stamped_ms=AS_OF_MS + at) for at, book in enumerate(inputs.books) if book]
    known = without_future(replace(inputs, books=tuple(late))).books
    assert known == (late[0], None, None)


@given(
    st.lists(st.integers(-30, 60), unique=True, max_size=40).map(sorted),
    st.integers(0, 12),
    st.integers(-40, 40),
    st.sampled_from([0, 0, 1]),
)
def test_every_closed_bar_on_the_grid_is_in_its_place(
    gaps: list[int], run: int, first: int, off: int
) -> None:
    """Series without a gap are copied as slices, others bar by bar: both as a loop would."""
    for hours in (gaps, list(range(first, first + run))):
        times = np.array([100 + hour for hour in hours], np.int64) * HOUR + off
        values = np.arange(1.0, len(times) + 1.0)
        one = CandleSeries(times, values, values, values, values, values, values)
        panel = Panel.from_series({"AUSDT": one}, ("AUSDT",), Interval.HOUR, 110 * HOUR, 20)
        wanted = [
            next((v for t, v in zip(times, values, strict=True) if t == opened), np.nan)
            for opened in panel.opened_ms
        ]
        np.testing.assert_array_equal(panel.close[:, 0], wanted)
