"""Turnover against volume times price, and jumps of an hour's volume."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.configuration.domain.sections import QualitySettings
from app.market.domain.data_quality import (
    average_price_deviation,
    longest_gap,
    newest_price_deviation,
    volume_jump,
)
from app.market.domain.models import CandleSeries, Interval
from app.market.domain.price_quarantine import QuarantineReason, find_volume_contradiction

HOUR_MS = Interval.HOUR.ms


def hourly(bars: int = 10 * 24) -> CandleSeries:
    """Volume with a daily cycle, 20 at its height and 1 at its foot; ranges of 1 %."""
    opened = np.arange(bars, dtype=np.int64) * HOUR_MS
    volume = np.where(np.arange(bars) % 24 == 23, 20.0, 1.0)
    price = np.full(bars, 10.0)
    return CandleSeries(opened, price, price * 1.005, price * 0.995, price, volume, volume * 10.0)


def changed(series: CandleSeries, **newest: float) -> CandleSeries:
    fields: dict[str, Any] = {name: getattr(series, name).copy() for name in newest}
    for name, value in newest.items():
        fields[name][-1] = value
    return replace(series, **fields)


@pytest.mark.parametrize(
    ("turnover", "volume", "expected"),
    [
        (100.0, 10.0, 0.0),
        (110.0, 10.0, 0.0),
        (121.0, 10.0, 0.1),
        (72.0, 10.0, 0.25),
        (1.0, 0.0, None),
    ],
)
def test_an_average_price_lies_between_low_and_high(
    turnover: float, volume: float, expected: float | None
) -> None:
    found = average_price_deviation(turnover, volume, 9.0, 11.0)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_newest_candle_is_looked_at() -> None:
    assert newest_price_deviation(hourly()) == 0.0
    assert newest_price_deviation(changed(hourly(), turnover=2_000.0)) == pytest.approx(
        8.9502, abs=1e-3
    )
    assert newest_price_deviation(changed(hourly(), turnover=0.0)) == 1e6
    assert newest_price_deviation(hourly(0)) is None


def test_an_hour_is_compared_with_the_same_hour_of_other_days() -> None:
    assert volume_jump(hourly()) == 1.0, "twenty times the hour before is usual at that time"
    assert volume_jump(changed(hourly(), volume=4_000.0)) == 200.0
    assert volume_jump(hourly(7 * 24)) is None, "the hour was seen on six other days only"


def doubt(series: CandleSeries) -> QuarantineReason | None:
    return find_volume_contradiction(None, volume_jump(series), QualitySettings())


def test_a_move_of_the_price_confirms_a_volume() -> None:
    loud = changed(hourly(), volume=4_000.0)
    assert doubt(loud) is QuarantineReason.UNCONFIRMED_VOLUME
    assert doubt(changed(loud, high=10.5)) is None
    half = changed(hourly(), volume=4_000.0, high=10.0 * 1.005 * 1.005)
    found = volume_jump(half)
    assert found == pytest.approx(200.0 / ((1.005**2 / 0.995 - 1.0) / (1.005 / 0.995 - 1.0)))


def test_no_move_of_the_price_confirms_a_volume_without_limit() -> None:
    assert volume_jump(changed(hourly(), volume=4_000.0, high=20.0)) == pytest.approx(40.0)
    assert (
        doubt(changed(hourly(), volume=20_000.0, high=20.0)) is QuarantineReason.UNCONFIRMED_VOLUME
    )


def test_a_price_that_never_moved_confirms_no_volume() -> None:
    still = hourly()
    still = replace(still, high=still.close.copy(), low=still.close.copy())
    assert doubt(changed(still, volume=4_000.0, high=10.5)) is QuarantineReason.UNCONFIRMED_VOLUME


@pytest.mark.parametrize("low", [0.0, np.nan])
def test_a_low_that_is_no_price_confirms_nothing(low: float) -> None:
    loud = changed(hourly(), volume=4_000.0, high=10.5)
    assert volume_jump(changed(loud, low=low)) == 200.0
    past = loud.low.copy()
    past[5] = low
    assert volume_jump(replace(loud, low=past)) == pytest.approx(40.0)
    assert volume_jump(changed(loud, volume=np.nan)) is None


def test_the_longest_gap_counts_missing_candles() -> None:
    whole = hourly(48)
    assert longest_gap(whole, Interval.HOUR) == 0
    kept = np.delete(np.arange(48), [5, 20, 21, 22])
    holed = CandleSeries(
        whole.opened_ms[kept], whole.open[kept], whole.high[kept], whole.low[kept],
        whole.close[kept], whole.volume[kept], whole.turnover[kept],
    )  # fmt: skip
    assert longest_gap(holed, Interval.HOUR) == 3
    assert longest_gap(hourly(1), Interval.HOUR) == 0


@pytest.mark.parametrize("unit", [0.001, 1000.0])
@pytest.mark.parametrize("is_inside", [True, False])
def test_hours_before_a_redenomination_count_other_coins(unit: float, is_inside: bool) -> None:
    """Volume is compared again once the hour was seen on seven days in the new unit."""
    whole = hourly()
    for days, expected in ((8, 1.0), (6, None)):
        row = len(whole) - days * 24
        old = np.where(np.arange(len(whole)) < row, 1.0 / unit, 1.0)
        fields = {name: getattr(whole, name) * old for name in ("open", "high", "low", "close")}
        if is_inside:
            fields["open"][row] /= unit
        assert volume_jump(replace(whole, volume=whole.volume / old, **fields)) == expected
