"""Padded arrays give what the functions of one book and one history of funding give."""

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.market.domain import liquidity
from app.market.domain.models import Book, Funding, Level
from app.scoring.domain.factors import FACTORS, measure
from app.scoring.domain.market_factors import BookLevels, Settlements
from tests.support.scoring_inputs import AS_OF_MS, HOUR_MS, make_inputs

TABLE = {factor.name: factor for factor in FACTORS}
STEPS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5_000)), max_size=7)


def side(steps: list[tuple[int, int]], sign: int, mid: int) -> tuple[Level, ...]:
    price, found = mid, []
    for step, lots in steps:
        price += sign * step
        if price > 0:
            found.append(Level(Decimal(price) / 1000, lots))
    return tuple(found)


@st.composite
def books(draw: st.DrawFn) -> Book | None:
    """Empty, crossed, wide, thin and sound ones."""
    if draw(st.booleans()) and draw(st.booleans()):
        return None
    mid, crossed = draw(st.integers(50, 100_000)), draw(st.sampled_from([0, 0, 0, 30]))
    bids, asks = side(draw(STEPS), -1, mid + crossed), side(draw(STEPS), +1, mid)
    return Book("XM", 1, bids, asks, AS_OF_MS)


@given(
    st.lists(books(), max_size=6),
    st.floats(0.001, 10.0),
    st.floats(1.0, 400.0),
    st.integers(1, 100_000),
)
def test_books_side_by_side_are_measured_as_each_alone(
    found: list[Book | None], multiplier: float, band_bp: float, notional: int
) -> None:
    levels, multipliers = BookLevels.of(found), np.full(len(found), multiplier)
    worth = float(notional) + 0.123456789  # no sum of levels is exactly that
    with np.errstate(all="ignore"):
        together = np.array([
            levels.depth_density(multipliers, band_bp),
            levels.net_impact_bp(multipliers, worth),
            levels.is_thinner(multipliers, worth),
        ])  # fmt: skip
    for at, book in enumerate(found):
        if book is None:
            assert np.isnan(together[:, at]).all()
            continue
        alone = [
            liquidity.depth_density(book, multiplier, band_bp),
            liquidity.net_impact_bp(book, multiplier, worth),
            float(liquidity.is_thinner(book, multiplier, worth)),
        ]
        if math.isnan(alone[1]):
            alone[2] = math.nan  # nothing is said of a broken book
        np.testing.assert_allclose(together[:, at], alone, rtol=1e-9, atol=1e-9)


def test_books_that_fill_at_the_best_level_cost_exactly_nothing_more() -> None:
    inputs = make_inputs(14)
    found = BookLevels.of(inputs.books).net_impact_bp(np.ones(14), 1e-3)
    np.testing.assert_array_equal(found, np.zeros(14))


@pytest.mark.parametrize("count", [3, 5, 21])
def test_equal_rates_are_exactly_stable(count: int) -> None:
    """Rounding must not rank coins whose funding never changed."""
    rates = [Decimal("0.0001"), Decimal("0.000123"), Decimal("-0.00007")]
    history = tuple(
        tuple(Funding(AS_OF_MS - back * 28_800_000, rate, 28_800_000) for back in range(21, 0, -1))
        for rate in rates
    )
    inputs = make_inputs(3)
    short = tuple(
        tuple(replace(one, interval_ms=7 * 24 * HOUR_MS // count) for one in each[-count:])
        for each in history
    )
    found = measure(TABLE["funding_stability"], replace(inputs, funding=short)).values
    np.testing.assert_array_equal(found, np.zeros(3))


def test_no_settlements_and_no_symbols_are_empty_arrays() -> None:
    assert Settlements.of([(), ()]).rate.shape == (0, 2)
    assert Settlements.of([]).rate.shape == (0, 0)
    assert BookLevels.of([]).mid.shape == (0,)
    assert np.isnan(BookLevels.of([None, None]).mid).all()
