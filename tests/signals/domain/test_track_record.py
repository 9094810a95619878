"""Agents earn their weight: the skilled, the random and the inverted, and how sure they may be."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.signals.domain.models import Direction
from app.signals.domain.opinion_pool import brier_score
from app.signals.domain.track_record import (
    ForecastRecord,
    agent_weights,
    bin_index,
    outcome_matches,
)

LEAST = 50


def planted(outcomes: int, seed: int = 5) -> dict[str, ForecastRecord]:
    """Three agents on the same coin: one leans to what comes, one to nothing, one against it."""
    draw = random.Random(seed)
    names = ("skilled", "random", "inverted")
    found = {name: ForecastRecord() for name in names}
    for _ in range(outcomes):
        came = draw.random() < 0.5
        lean = 0.25 if came == (draw.random() < 0.8) else -0.25  # right four times in five
        said = {"skilled": 0.5 + lean, "random": draw.uniform(0.3, 0.7), "inverted": 0.5 - lean}
        found = {name: found[name].add_forecast(said[name], came) for name in names}
    return found


@pytest.mark.parametrize("seed", range(5))
def test_within_200_outcomes_skill_gets_rising_random_no_and_inverted_zero_weight(
    seed: int,
) -> None:
    rising = [planted(number, seed)["skilled"].skill for number in (0, 50, 200)]
    assert 0.0 == rising[0] < rising[1] < rising[2]
    weights = agent_weights(planted(200, seed), ("skilled", "random", "inverted"), LEAST)
    assert weights is not None
    assert weights["skilled"] > 0.9
    assert weights["random"] < 0.1
    assert weights["inverted"] == 0.0


def test_until_skill_is_known_nobody_has_a_weight() -> None:
    agents = ("skilled", "random")
    assert agent_weights({}, agents, LEAST) is None
    assert agent_weights(planted(LEAST - 1), agents, LEAST) is None
    assert agent_weights(planted(LEAST), agents, LEAST) is not None
    assert agent_weights({"inverted": planted(200)["inverted"]}, ("inverted",), LEAST) is None
    one = planted(200) | {"random": ForecastRecord().add_forecast(0.98, True)}
    assert agent_weights(one, agents, LEAST) == {"skilled": 1.0}, "one lucky guess is no skill"
    assert agent_weights(planted(200), ("random", "new"), LEAST) in (None, {"random": 1.0})


@given(st.lists(st.tuples(st.floats(0.02, 0.98), st.booleans()), min_size=1, max_size=40))
def test_a_record_knows_the_brier_score_of_what_it_was_told(said: list[tuple[float, bool]]) -> None:
    record = ForecastRecord()
    for probability, came in said:
        record = record.add_forecast(probability, came)
    probabilities, outcomes = zip(*said, strict=True)
    assert record.brier == pytest.approx(brier_score(probabilities, outcomes), abs=1e-12)
    assert (record.outcomes, record.occurrences) == (len(said), sum(outcomes))
    assert [one.number for one in record.bins] == sorted({bin_index(one) for one in probabilities})


def test_calibration_compares_what_was_said_with_what_came() -> None:
    record = ForecastRecord()
    assert (record.brier, record.calibration_error, record.skill) == (None, None, 0.0)
    for came in (True, True, True, False):
        record = record.add_forecast(0.75, came)
    assert record.calibration_error == 0.0
    for _ in range(4):
        record = record.add_forecast(1.0, False)
    assert record.calibration_error == 0.5
    assert [one.number for one in record.bins] == [7, 9]


def test_a_sale_is_right_about_what_stays_behind_and_a_remark_about_nothing() -> None:
    assert outcome_matches(Direction.BUY, True) is True
    assert outcome_matches(Direction.SELL, True) is False
    assert outcome_matches(Direction.SELL, False) is True
    assert outcome_matches(Direction.NEUTRAL, True) is None
