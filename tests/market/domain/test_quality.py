"""Verdicts on data: age, closing, soundness, gaps."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.foundation.data_status import DataStatus
from app.market.domain.data_quality import (
    EMPTY,
    changed_candles,
    closed_candles,
    coverage,
    first_missing_ms,
    forward_filled_bars,
    freshness,
    last_closed_open_ms,
    median_turnover,
    merged,
    valid_candles,
    worst,
)
from app.market.domain.models import CandleSeries, Interval

HOUR = Interval.HOUR.ms
START = 1_700_000_000_000 // HOUR * HOUR


def series(count: int, start: int = START, price: float = 100.0) -> CandleSeries:
    flat = np.full(count, price)
    opened = start + HOUR * np.arange(count, dtype=np.int64)
    return CandleSeries(opened, flat, flat + 1, flat - 1, flat, flat, np.arange(1.0, count + 1))


@pytest.mark.parametrize(
    ("age", "status"), [(None, "unavailable"), (0.0, "fresh"), (60.0, "fresh"), (60.1, "stale")]
)
def test_freshness(age: float | None, status: str) -> None:
    assert freshness(age, 60.0) is DataStatus(status)


def test_the_worst_verdict_counts() -> None:
    assert worst([DataStatus.FRESH, DataStatus.STALE]) is DataStatus.STALE
    assert worst([DataStatus.UNAVAILABLE, DataStatus.STALE]) is DataStatus.UNAVAILABLE
    assert worst([]) is DataStatus.UNAVAILABLE


@pytest.mark.parametrize(
    ("after_close_ms", "closed"), [(-1, 1), (0, 1), (1_999, 1), (2_000, 2), (HOUR, 2)]
)
def test_D04_a_candle_is_closed_two_seconds_after_its_end(after_close_ms: int, closed: int) -> None:
    two = series(2)
    now = START + 2 * HOUR + after_close_ms
    assert len(closed_candles(two, Interval.HOUR, now)) == closed
    assert last_closed_open_ms(Interval.HOUR, now) == START + (closed - 1) * HOUR


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("open", 102.0),
        ("close", 98.0),
        ("low", 0.0),
        ("low", np.nan),
        ("high", np.inf),
        ("high", 99.5),
        ("volume", -1.0),
        ("turnover", np.nan),
        ("opened_ms", START + HOUR + 1),
    ],
)
def test_D03_an_inconsistent_candle_is_a_gap(field: str, value: float) -> None:
    bad = series(3)
    getattr(bad, field)[1] = value
    kept = valid_candles(bad, Interval.HOUR)
    assert kept.opened_ms.tolist() == [START, START + 2 * HOUR]
    assert kept.turnover.tolist() == [1.0, 3.0]
    whole = series(3)
    assert valid_candles(whole, Interval.HOUR) is whole


def test_merging_prefers_the_newer_word_and_keeps_the_last() -> None:
    both = merged(series(3), series(2, START + 2 * HOUR, 200.0), 3)
    assert both.opened_ms.tolist() == [START + HOUR, START + 2 * HOUR, START + 3 * HOUR]
    assert both.close.tolist() == [100.0, 200.0, 200.0]
    assert len(merged(EMPTY, EMPTY, 5)) == 0


@given(st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)), st.integers(1, 40))
def test_merging_sorts_and_never_repeats(old: list[int], new: list[int], bars: int) -> None:
    def one(hours: list[int], price: float) -> CandleSeries:
        kept = sorted(set(hours))
        flat = np.full(len(kept), price)
        opened = START + HOUR * np.array(kept, dtype=np.int64)
        return CandleSeries(opened, flat, flat, flat, flat, flat, flat)

    result = merged(one(old, 1.0), one(new, 2.0), bars)
    expected = dict.fromkeys(old, 1.0) | dict.fromkeys(new, 2.0)
    hours = sorted(expected)[-bars:]
    assert ((result.opened_ms - START) // HOUR).tolist() == hours
    assert result.close.tolist() == [expected[hour] for hour in hours]


def test_asks_only_for_what_is_missing() -> None:
    now = START + 10 * HOUR + 5_000
    assert first_missing_ms(EMPTY, Interval.HOUR, 4, now) == START + 6 * HOUR
    assert first_missing_ms(series(2), Interval.HOUR, 4, now) == START + 6 * HOUR
    assert first_missing_ms(series(8), Interval.HOUR, 4, now) == START + 8 * HOUR
    assert first_missing_ms(series(10), Interval.HOUR, 4, now) is None


def test_coverage_counts_the_bars_that_are_here() -> None:
    now = START + 10 * HOUR + 5_000
    assert coverage(series(10), Interval.HOUR, 10, now) == 1.0
    assert coverage(series(8), Interval.HOUR, 10, now) == 0.8
    assert coverage(series(12), Interval.HOUR, 5, now) == 1.0
    assert coverage(EMPTY, Interval.HOUR, 10, now) == 0.0


def test_median_turnover_needs_all_its_days() -> None:
    assert median_turnover(series(29), 30) is None
    assert median_turnover(series(31), 30) == Decimal("16.5")


def test_D06_only_what_is_new_or_changed_is_news() -> None:
    held = series(5)
    assert changed_candles(EMPTY, held) is EMPTY
    assert changed_candles(held, EMPTY) is held
    assert len(changed_candles(series(1, START + 4 * HOUR), _last(held))) == 1, "another turnover"
    assert len(changed_candles(_last(held), held)) == 0
    longer = series(7)
    assert changed_candles(longer, held).opened_ms.tolist() == longer.opened_ms[5:].tolist()
    changed = merged(held, series(1, START + 2 * HOUR, price=50.0), 5)
    assert changed_candles(changed, held).opened_ms.tolist() == [START + 2 * HOUR]
    earlier = series(2, START - 2 * HOUR)
    assert len(changed_candles(earlier, held)) == 2


def _last(one: CandleSeries) -> CandleSeries:
    return closed_candles(
        merged(EMPTY, one, 1), Interval.HOUR, int(one.opened_ms[-1]) + HOUR + 2_000
    )


def test_D05_bars_of_short_gaps_are_counted() -> None:
    holes = merged(series(3), series(2, START + 8 * HOUR), 9)  # five are missing
    assert forward_filled_bars(holes, Interval.HOUR) == 5
    assert forward_filled_bars(merged(holes, series(1, START + 16 * HOUR), 9), Interval.HOUR) == 5
    assert forward_filled_bars(series(4), Interval.HOUR) == 0
    assert forward_filled_bars(EMPTY, Interval.HOUR) == 0
