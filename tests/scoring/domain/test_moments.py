"""Fewer than ten symbols are measured by what earlier universes looked like."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from app.configuration.domain.sections import Family
from app.scoring.domain.board import Board, CardStatus
from app.scoring.domain.composite import COMPOSITE
from app.scoring.domain.counterfactual import find_counterfactual
from app.scoring.domain.engine import UNIVERSE_TOO_SMALL, score
from app.scoring.domain.factors import FACTORS
from app.scoring.domain.historical_moments import (
    DayMoments,
    compute_day_moments,
    pool_by_name,
    pool_days,
)
from app.scoring.domain.input_hash import input_hash
from tests.scoring.domain.test_counterfactual import SPEC, board_of, supposing
from tests.support.scoring_inputs import make_inputs

FIRST, LAST = date(2026, 2, 1), date(2026, 2, 5)
SEEN = score(make_inputs(16, daily=120, hourly=260), SPEC).day_moments
EARLIER = pool_by_name({LAST: SEEN, FIRST: SEEN})
FEW = make_inputs(8, seed=3, daily=120, hourly=260)
SMALL = board_of(FEW, earlier=EARLIER)


def test_days_together_are_one_sample_of_all_their_values() -> None:
    one, other = np.arange(10.0), 3.0 * np.arange(25.0) - 7.0
    seen = [(LAST, compute_day_moments(other)), (FIRST, compute_day_moments(one))]
    found = pool_days([(day, moments) for day, moments in seen if moments is not None])
    whole = np.concatenate([one, other])
    np.testing.assert_allclose([found.mean, found.sd], [whole.mean(), whole.std()], rtol=1e-14)
    assert (found.symbols, found.days, found.first, found.last) == (35, 2, FIRST, LAST)


def test_nine_values_and_ten_equal_ones_tell_nothing() -> None:
    nan = float("nan")
    assert compute_day_moments(np.array([*range(9), nan, np.inf], dtype=float)) is None
    assert compute_day_moments(np.array([0.1 + 0.2, *[0.3] * 9])) is None, "rounding is no spread"
    assert compute_day_moments(np.zeros(10)) is None
    assert compute_day_moments(np.array([*range(10), nan], dtype=float)) == DayMoments(
        4.5, 8.25**0.5, 10
    )


def test_each_name_has_the_days_that_knew_it() -> None:
    one, other = DayMoments(1.0, 2.0, 10), DayMoments(3.0, 2.0, 10)
    found = pool_by_name({LAST: {"a": other}, FIRST: {"a": one, "b": one}})
    assert (found["a"].mean, found["a"].days) == (2.0, 2)
    assert (found["b"].mean, found["b"].days, found["b"].last) == (1.0, 1, FIRST)
    assert pool_by_name({}) == {}


def test_a_universe_under_ten_is_scored_by_moments_and_names_them() -> None:
    assert SMALL.universe_size == 8
    assert SMALL.moments[COMPOSITE] == EARLIER[COMPOSITE]
    assert SMALL.moments.keys() == EARLIER.keys()
    assert set(Family) < set(EARLIER)
    for card in SMALL.cards:
        parts = [one.contribution for one in card.factors if one.contribution is not None]
        assert sum(parts) == pytest.approx(card.z, abs=1e-9)
        for reading in card.factors:
            known = EARLIER.get(reading.name)
            if known is not None and reading.raw is not None:
                sign = {one.name: one.orientation for one in FACTORS}[reading.name]
                away = np.clip((reading.raw - known.mean) / known.sd, -3.0, 3.0)
                assert reading.z == pytest.approx(sign * away, abs=1e-12)


def test_what_nobody_saw_before_stays_unknown() -> None:
    board = board_of(FEW)
    assert {card.reason for card in board.cards} == {UNIVERSE_TOO_SMALL}
    assert board.moments == {}
    some = {name: one for name, one in EARLIER.items() if name != "spread"}
    readings = board_of(FEW, earlier=some).cards[0].factors
    assert {one.name: one.reason for one in readings}["spread"] == UNIVERSE_TOO_SMALL


def test_a_universe_that_is_large_enough_uses_none() -> None:
    inputs = make_inputs(16, daily=120, hourly=260)
    plain, told = board_of(inputs), board_of(inputs, earlier=EARLIER)
    assert told == plain
    quoted = inputs.bid.copy()
    quoted[:9] = np.nan
    few = board_of(replace(inputs, bid=quoted), earlier=EARLIER)
    # The trade flow of this sample is known for a few symbols only.
    assert set(few.moments) - {"signed_volume", "trade_intensity"} == {"spread"}


def test_a_small_board_leaves_no_moments() -> None:
    assert score(FEW, SPEC, earlier=EARLIER).day_moments == {}


def test_moments_are_a_part_of_the_inputs() -> None:
    other = {**EARLIER, COMPOSITE: replace(EARLIER[COMPOSITE], last=FIRST)}
    assert len({input_hash(FEW), input_hash(FEW, EARLIER), input_hash(FEW, other)}) == 3
    assert SMALL.input_hash != board_of(FEW).input_hash


def test_in_a_small_universe_too_the_change_brings_it_there() -> None:
    def rank(board: Board, name: str) -> int | None:
        card = board.card(name)
        return None if card is None else card.rank

    symbol = SMALL.cards[5].symbol
    found = find_counterfactual(SMALL, FACTORS, symbol, 3)
    assert SMALL.cards[5].status is CardStatus.SCORED
    assert found is not None
    assert found.rank == rank(SMALL, symbol) == 6
    there = board_of(FEW, supposing(symbol, found.changes, 1.0), earlier=EARLIER)
    assert (rank(there, symbol) or 9) <= 3
    short = board_of(FEW, supposing(symbol, found.changes, 0.5), earlier=EARLIER)
    assert (rank(short, symbol) or 0) > 3
