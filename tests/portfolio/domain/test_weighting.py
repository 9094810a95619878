"""Exact weights: the corner cases as a table, the rest as properties over random cases."""

import math
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.portfolio.domain.models import FULL
from app.portfolio.domain.weighting import (
    Flag,
    WeightRequest,
    WeightRole,
    allocate_weights,
    project_weights,
    raw_share,
)

PERCENT = 1_000_000
LOW, HIGH = 5 * PERCENT, 20 * PERCENT
GOLDEN = (0.4, 0.2, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.02)


def requests(*raw_shares: float) -> list[WeightRequest]:
    return [
        WeightRequest(f"S{number:02}USDT", WeightRole.FUNDED, one, 0)
        for number, one in enumerate(raw_shares)
    ]


def weights(*raw_shares: float, low: int = LOW, high: int = HIGH) -> list[int]:
    return list(allocate_weights(requests(*raw_shares), low, high).weights_u.values())


def test_nobody_to_fund_leaves_everything_in_cash() -> None:
    assert allocate_weights([], LOW, HIGH).cash_u == FULL


@pytest.mark.parametrize(
    ("count", "high", "each", "cash"),
    [
        (2, HIGH, 20 * PERCENT, 60 * PERCENT),
        (1, HIGH, 20 * PERCENT, 80 * PERCENT),
        (5, HIGH, 20 * PERCENT, 0),
        (4, 25 * PERCENT, 25 * PERCENT, 0),
    ],
)
def test_maximums_are_never_stretched(count: int, high: int, each: int, cash: int) -> None:
    given_out = allocate_weights(requests(*range(1, count + 1)), LOW, high)
    assert set(given_out.weights_u.values()) == {each}
    assert given_out.cash_u == cash
    assert given_out.flags == ((Flag.CAP_BOUND_CASH,) if cash else ())


def test_minimums_that_exceed_everything_are_scaled_and_flagged() -> None:
    given_out = allocate_weights(requests(*range(1, 13)), 10 * PERCENT, HIGH)
    assert given_out.flags == (Flag.FLOOR_RELAXED,)
    assert sorted(set(given_out.weights_u.values())) == [8_333_333, 8_333_334]
    assert given_out.cash_u == 0


def test_minimums_that_take_all_of_the_room_are_not_scaled() -> None:
    given_out = allocate_weights(requests(1.0, 2.0, 3.0, 4.0), 25 * PERCENT, 30 * PERCENT)
    assert given_out.flags == ()
    assert set(given_out.weights_u.values()) == {25 * PERCENT}


def test_the_last_millionth_of_a_percent_is_room() -> None:
    locked = WeightRequest("AUSDT", WeightRole.LOCKED, 1.0, FULL - 1)
    given_out = allocate_weights([locked, *requests(1.0)], LOW, HIGH)
    assert Flag.LOCKED_EXCEED not in given_out.flags
    assert (given_out.weights_u["S00USDT"], given_out.cash_u) == (1, 0)


def test_equal_bounds_give_that_value_and_the_rest_is_cash() -> None:
    given_out = allocate_weights(requests(3.0, 1.0), 7 * PERCENT, 7 * PERCENT)
    assert list(given_out.weights_u.values()) == [7 * PERCENT, 7 * PERCENT]
    assert given_out.cash_u == 86 * PERCENT


@pytest.mark.parametrize(
    ("raw_shares", "expected"),
    [
        ((0.0,) * 3, [33_333_334, 33_333_333, 33_333_333]),
        ((1.0,) * 3, [33_333_334, 33_333_333, 33_333_333]),
        ((2.5,) * 7, [14_285_715] * 2 + [14_285_714] * 5),
        ((math.nan,) * 2 + (math.inf,) * 2, [25 * PERCENT] * 4),
    ],
)
def test_equal_raw_shares_give_an_equal_split(
    raw_shares: tuple[float, ...], expected: list[int]
) -> None:
    assert weights(*raw_shares, low=0, high=100 * PERCENT) == expected


def test_weight_above_the_maximum_goes_to_zero_raw_shares() -> None:
    given_out = allocate_weights(requests(5.0, 3.0, 0.0, 0.0, 0.0, -1.0), 5 * PERCENT, 20 * PERCENT)
    assert list(given_out.weights_u.values()) == [20 * PERCENT] * 2 + [15 * PERCENT] * 4
    assert given_out.flags == (Flag.ZERO_SCORE_FILL,)
    assert given_out.cash_u == 0


def test_a_tiny_raw_share_beats_zero() -> None:
    given_out = allocate_weights(requests(0.5, 0.3, 0.0, 0.0, 0.0, 0.0), 5 * PERCENT, 20 * PERCENT)
    assert list(given_out.weights_u.values()) == [20 * PERCENT] * 2 + [15 * PERCENT] * 4


def test_minimums_that_just_fit_are_no_fill() -> None:
    given_out = allocate_weights(requests(5.0, 3.0, 0.0, 0.0, 0.0, 0.0), 15 * PERCENT, 20 * PERCENT)
    assert list(given_out.weights_u.values()) == [20 * PERCENT] * 2 + [15 * PERCENT] * 4
    assert given_out.flags == ()


def test_zero_raw_shares_get_the_minimum_if_the_rest_fits() -> None:
    assert weights(*([1.0] * 5 + [0.0] * 3)) == [17 * PERCENT] * 5 + [5 * PERCENT] * 3


def test_golden_projection() -> None:
    expected = [0.2, 0.2, 0.13636364, 0.10909091, 0.08181818, 0.06818182, 0.05454545, *[0.05] * 3]
    assert [one / FULL for one in weights(*GOLDEN)] == pytest.approx(expected, abs=6e-9)
    assert sum(weights(*GOLDEN)) == FULL


def test_locked_keep_their_weight_and_excluded_have_none() -> None:
    some = [
        WeightRequest("LOCKED", WeightRole.LOCKED, 9.0, 17_000_001),
        WeightRequest("GONE", WeightRole.EXCLUDED, 9.0, 20 * PERCENT),
        *requests(1.0, 1.0, 1.0, 1.0, 1.0),
    ]
    given_out = allocate_weights(some, LOW, HIGH)
    assert given_out.weights_u["LOCKED"] == 17_000_001
    assert given_out.weights_u["GONE"] == 0
    funded = [one for name, one in given_out.weights_u.items() if name.startswith("S0")]
    assert funded == [16_600_000] * 4 + [16_599_999]
    assert given_out.cash_u == 0


def test_locked_weights_that_leave_no_room() -> None:
    full = [WeightRequest("LOCKED", WeightRole.LOCKED, 0.0, FULL), *requests(1.0)]
    given_out = allocate_weights(full, LOW, HIGH)
    assert given_out.weights_u == {"LOCKED": FULL, "S00USDT": 0}
    assert given_out.flags == (Flag.LOCKED_EXCEED,)


def test_room_below_one_minimum_is_taken_as_it_is() -> None:
    almost = [WeightRequest("LOCKED", WeightRole.LOCKED, 0.0, FULL - 3 * PERCENT), *requests(1.0)]
    assert allocate_weights(almost, LOW, HIGH).weights_u["S00USDT"] == 3 * PERCENT


@pytest.mark.parametrize(
    ("z", "volatility", "tilt", "expected"),
    [
        (0.0, 0.5, 0.5, 2.0),
        (1.0, 1.0, 0.5, math.exp(0.5)),
        (1.0, 0.0, 0.5, 0.0),
        (math.nan, 1.0, 0.5, 0.0),
        (700.0, 1.0, 1.0, math.exp(700.0)),
        (700.5, 1.0, 1.0, 0.0),
        (1e6, 1.0, 0.5, 0.0),
        (1.0, 5e-324, 0.5, 0.0),
    ],
)
def test_raw_share(z: float, volatility: float, tilt: float, expected: float) -> None:
    assert raw_share(z, volatility, tilt) == expected


raw_shares = st.one_of(
    st.just(0.0),
    st.floats(min_value=0.0, max_value=50.0),
    st.floats(min_value=1e-300, max_value=1e300),
)


@st.composite
def bounds(draw: st.DrawFn) -> tuple[int, int]:
    high = draw(st.integers(1, FULL))
    return draw(st.integers(0, high)), high


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.lists(raw_shares, max_size=24), bounds(), st.randoms(use_true_random=False))
def test_random_cases_hold_every_invariant(
    scores: list[float], limits: tuple[int, int], dice: Random
) -> None:
    low, high = limits
    some = requests(*scores)
    given_out = allocate_weights(some, low, high)
    values = list(given_out.weights_u.values())
    assert sum(values) + given_out.cash_u == FULL
    assert given_out.cash_u >= 0
    assert all(0 <= one <= high for one in values)
    if Flag.FLOOR_RELAXED not in given_out.flags:
        assert all(one >= low for one in values)
    if len(values) * high >= FULL:
        assert given_out.cash_u == 0
    for a, weight_a in zip(scores, values, strict=True):
        for b, weight_b in zip(scores, values, strict=True):
            assert a <= b or weight_a >= weight_b - 1
    shuffled = list(some)
    dice.shuffle(shuffled)
    assert allocate_weights(shuffled, low, high) == given_out
    scaled = [WeightRequest(one.symbol, one.role, one.raw_share * 0.25, 0) for one in some]
    if all(one == 0.0 or one > 1e-290 for one in scores):
        assert allocate_weights(scaled, low, high) == given_out


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.floats(min_value=0.01, max_value=50.0), min_size=5, max_size=20))
def test_weights_are_the_clipped_proportions(scores: list[float]) -> None:
    """The optimality condition itself: one lambda explains every weight to within a unit."""
    shares, _ = project_weights(scores, LOW, HIGH, FULL)
    inner = [
        Fraction(share) / Fraction(score)
        for share, score in zip(shares, scores, strict=True)
        if LOW < share < HIGH
    ]
    for share, score in zip(shares, scores, strict=True):
        for level in inner:
            ideal = min(max(level * Fraction(score), Fraction(LOW)), Fraction(HIGH))
            slack = 1 + Fraction(score) / Fraction(min(scores))
            assert abs(ideal - share) <= slack
