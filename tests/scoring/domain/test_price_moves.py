"""When a price has moved by more than it usually does."""

import numpy as np
import pytest

from app.configuration.domain.sections import FeedSettings
from app.market.domain.models import CandleSeries, Floats, Interval
from app.scoring.domain.score_stability import HOURS, has_moved, hourly_volatility

BY_BP = FeedSettings(rescore_move_bp=50.0, rescore_move_volatilities=0.0)
BY_VOLATILITY = FeedSettings(rescore_move_bp=0.0, rescore_move_volatilities=2.0)


@pytest.mark.parametrize(
    ("rules", "now", "volatility", "expected"),
    [
        (BY_BP, 100.4, None, False),
        (BY_BP, 100.6, None, True),
        (BY_BP, 99.4, None, True),
        (BY_VOLATILITY, 101.9, 0.01, False),
        (BY_VOLATILITY, 102.1, 0.01, True),
        (BY_VOLATILITY, 97.9, 0.01, True),
        (BY_VOLATILITY, 150.0, None, False),
        (FeedSettings(rescore_move_bp=0.0, rescore_move_volatilities=0.0), 500.0, 0.01, False),
        (BY_BP, 0.0, None, False),
    ],
)
def test_a_move_is_measured_in_basis_points_or_in_its_own_volatility(
    rules: FeedSettings, now: float, volatility: float | None, expected: bool
) -> None:
    assert has_moved(100.0, now, volatility, rules) is expected


def candles(close: Floats) -> CandleSeries:
    """Hourly bars that do not move within the hour."""
    opened = np.arange(len(close), dtype=np.int64) * Interval.HOUR.ms
    return CandleSeries(opened, close, close, close, close, close, close)


def test_a_volatility_needs_a_whole_day_of_bars_that_move() -> None:
    close = 100.0 * np.exp(np.cumsum(np.tile([0.01, -0.01], HOURS)))
    assert hourly_volatility(candles(close)) == pytest.approx(0.01, rel=0.05)
    assert hourly_volatility(candles(close[:HOURS])) is None
    assert hourly_volatility(candles(np.full(60, 5.0))) is None
    assert hourly_volatility(candles(np.append(close, 0.0))) is None
    assert hourly_volatility(candles(close[:0])) is None


def test_a_redenomination_within_the_day_leaves_no_volatility() -> None:
    close = 100.0 * np.exp(np.cumsum(np.tile([0.01, -0.01], 2 * HOURS)))
    long_ago = np.where(np.arange(len(close)) < HOURS, close / 1000.0, close)
    assert hourly_volatility(candles(long_ago)) == pytest.approx(0.01, rel=0.05)
    just_now = np.where(np.arange(len(close)) < len(close) - 5, close / 1000.0, close)
    assert hourly_volatility(candles(just_now)) is None
