"""What brings a symbol into the first places: applied it does, half of it does not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np
import pytest

from app.configuration.domain.model import Configuration
from app.foundation.data_status import DataSource
from app.market.domain.models import Floats
from app.market.domain.panel import ScoringInputs
from app.scoring.domain.board import Board, CardStatus
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.counterfactual import FactorChange, find_counterfactual
from app.scoring.domain.engine import score
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.domain.historical_moments import HistoricMoments
from tests.support.scoring_inputs import make_inputs

INPUTS = make_inputs(20)
SPEC = AlgorithmSpec("default", Configuration().family_weights)


def board_of(
    inputs: ScoringInputs = INPUTS,
    spec: AlgorithmSpec = SPEC,
    steady: Floats | None = None,
    earlier: Mapping[str, HistoricMoments] = MappingProxyType({}),
) -> Board:
    return score(inputs, spec, steady, earlier).to_board(
        run_id="00000000-0000-4000-8000-000000000001",
        algorithm="default",
        algorithm_version=1,
        configuration_version=1,
        calculated_at=datetime(2026, 3, 1, tzinfo=UTC),
        duration_ms=1.0,
        data_source=DataSource.SANDBOX,
        is_provisional=False,
    )


BOARD = board_of()


def supposing(symbol: str, changes: Sequence[FactorChange], share: float) -> AlgorithmSpec:
    """The same algorithm in a world where `symbol` measures what is supposed of it."""
    needed = {one.factor: one.raw + share * (one.needed - one.raw) for one in changes}

    def told(factor: Factor) -> Callable[[ScoringInputs], Floats]:
        def measure(inputs: ScoringInputs) -> Floats:
            own = np.array([name == symbol for name in inputs.symbols])
            return np.where(own, needed[factor.name], factor.measure(inputs))

        return measure

    factors = tuple(
        replace(factor, measure=told(factor)) if factor.name in needed else factor
        for factor in FACTORS
    )
    return replace(SPEC, factors=factors)


def rank_of(board: Board, symbol: str) -> int:
    card = board.card(symbol)
    assert card is not None
    assert card.rank is not None
    return card.rank


@pytest.mark.parametrize("place", [6, 11, 16])
@pytest.mark.parametrize("top", [3, 5])
def test_the_change_brings_it_there_and_half_of_it_does_not(place: int, top: int) -> None:
    symbol = BOARD.cards[place - 1].symbol
    found = find_counterfactual(BOARD, FACTORS, symbol, top)
    assert found is not None
    assert (found.top, found.rank) == (top, place)
    assert found.changes
    assert rank_of(board_of(INPUTS, supposing(symbol, found.changes, 1.0)), symbol) <= top
    assert rank_of(board_of(INPUTS, supposing(symbol, found.changes, 0.5)), symbol) > top


def test_one_factor_is_told_where_one_is_enough() -> None:
    close = find_counterfactual(BOARD, FACTORS, BOARD.cards[5].symbol, 5)
    assert close is not None
    assert len(close.changes) == 1
    factor = {one.name: one for one in FACTORS}[close.changes[0].factor]
    assert close.changes[0].unit == factor.unit
    assert factor.orientation * (close.changes[0].needed - close.changes[0].raw) > 0.0


def test_the_last_needs_several() -> None:
    found = find_counterfactual(BOARD, FACTORS, BOARD.cards[19].symbol, 1)
    assert found is not None
    assert len(found.changes) > 1


def test_who_is_there_needs_nothing_and_who_has_no_score_has_no_answer() -> None:
    there = find_counterfactual(BOARD, FACTORS, BOARD.cards[2].symbol, 3)
    assert there is not None
    assert (there.rank, there.changes) == (3, ())
    assert find_counterfactual(BOARD, FACTORS, "NOSUCHUSDT", 3) is None
    board = board_of(replace(INPUTS, ages_s={s: np.full(20, 1e9) for s in INPUTS.ages_s}))
    assert board.cards[0].status is CardStatus.UNAVAILABLE
    assert find_counterfactual(board, FACTORS, board.cards[0].symbol, 3) is None
    assert find_counterfactual(BOARD, FACTORS[1:], BOARD.cards[9].symbol, 3) is None, (
        "another table"
    )


def test_where_confidence_is_too_low_nothing_helps() -> None:
    """Its best composite, shrunk by old data, stays behind the others'."""
    ages = {source: values.copy() for source, values in INPUTS.ages_s.items()}
    column = 7
    for source, values in ages.items():
        values[column] = INPUTS.half_lives_s[source]
    board = board_of(replace(INPUTS, ages_s=ages))
    found = find_counterfactual(board, FACTORS, INPUTS.symbols[column], 1)
    assert found is not None
    assert found.changes == ()
    assert found.rank > 1
