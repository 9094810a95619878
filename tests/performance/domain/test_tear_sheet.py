"""Drawdown periods and monthly returns by hand, and against the figures of the same curve."""

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from app.performance.domain.equity_curve import (
    Curve,
    KnownEquity,
    Point,
    compute_track_figures,
    known_equity,
)
from app.performance.domain.tear_sheet import (
    DrawdownPeriod,
    MonthReturn,
    find_drawdown_periods,
    monthly_returns,
    year_return,
)

T0 = datetime(2025, 11, 15, 12, tzinfo=UTC)


def days(*values: str, first: datetime = T0) -> tuple[KnownEquity, ...]:
    return tuple(
        KnownEquity(first + timedelta(days=at), Decimal(value)) for at, value in enumerate(values)
    )


def at(day: int) -> datetime:
    return T0 + timedelta(days=day)


def test_drawdowns_have_their_dates_and_the_deepest_is_first() -> None:
    points = days("1", "0.95", "1", "1.2", "1.08", "0.9", "1.1", "1.25", "1.25", "1.2", "1.225")
    assert find_drawdown_periods(points) == (
        DrawdownPeriod(at(3), at(5), at(7), 0.25),
        DrawdownPeriod(at(0), at(1), at(2), 0.05),
        DrawdownPeriod(at(8), at(9), None, 0.04),
    )


def test_without_a_fall_there_is_no_drawdown() -> None:
    for values in ((), ("1",), ("1", "1", "1.1")):
        assert find_drawdown_periods(days(*values)) == ()


def test_equal_drawdowns_stand_in_time_order() -> None:
    first, second = find_drawdown_periods(days("1", "0.5", "1", "0.5"))
    assert (first.peak_at, second.peak_at) == (at(0), at(2))


def test_months_are_calendar_months_and_a_gap_belongs_to_the_next_known_one() -> None:
    midnight = datetime(2025, 12, 1, tzinfo=UTC)  # the close of the last day of November
    points = (
        KnownEquity(T0, Decimal(1)),
        KnownEquity(T0 + timedelta(days=1), Decimal("1.3")),
        KnownEquity(midnight, Decimal("1.1")),
        KnownEquity(midnight + timedelta(hours=1), Decimal("1.21")),
        KnownEquity(datetime(2026, 2, 3, tzinfo=UTC), Decimal("0.605")),
        KnownEquity(datetime(2026, 3, 1, tzinfo=UTC), Decimal("1.21")),
    )
    months = monthly_returns(points)
    assert [(one.year, one.month) for one in months] == [
        (2025, 11), (2025, 12), (2026, 1), (2026, 2),
    ]  # fmt: skip
    assert [one.value for one in months] == [
        pytest.approx(0.1), pytest.approx(0.1), None, pytest.approx(0.0),
    ]  # fmt: skip
    assert year_return(months, 2025) == pytest.approx(0.21)
    assert year_return(months, 2026) == pytest.approx(0.0)
    assert year_return((MonthReturn(2026, 1, None),), 2026) is None
    assert monthly_returns(points[:1]) == monthly_returns(()) == ()


def test_after_a_total_loss_no_return_is_known() -> None:
    points = days("1", "0", "0.5", first=datetime(2026, 1, 31, 12, tzinfo=UTC))
    assert [one.value for one in monthly_returns(points)] == [-0.5]
    points = (*days("1", "0"), KnownEquity(T0 + timedelta(days=40), Decimal("0.5")))
    assert [one.value for one in monthly_returns(points)] == [-1.0, None]


@pytest.mark.parametrize("seed", range(5))
def test_they_agree_with_the_figures_of_the_curve(seed: int) -> None:
    """The deepest drawdown is the maximum, and the months compound to the growth."""
    steps = np.random.default_rng(seed).normal(0.0, 0.04, 400)
    worth = [Decimal(repr(round(float(one), 9))) for one in np.exp(np.cumsum(steps))]
    points = tuple(
        Point(at(number), None if number % 7 == 3 else value, {}, None, is_step=number == 0)
        for number, value in enumerate(worth)
    )
    curve = Curve(points, {}, Decimal(0), None)
    for since, until in ((None, None), (at(30), at(300))):
        known = known_equity(curve, since=since, until=until)
        figures = compute_track_figures(curve, since=since, until=until)
        assert find_drawdown_periods(known)[0].depth == pytest.approx(figures.max_drawdown)
        returns = [one.value for one in monthly_returns(known) if one.value is not None]
        assert figures.growth is not None
        assert math.prod(1.0 + one for one in returns) == pytest.approx(1.0 + figures.growth)
