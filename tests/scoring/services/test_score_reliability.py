"""Reliability is worked out once per closed day and algorithm."""

from dataclasses import replace

import numpy as np

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Family
from app.scoring.domain.composite import AlgorithmSpec
from app.scoring.domain.score_stability import reliability
from app.scoring.services.score_reliability import ScoreReliabilityCache
from tests.support.scoring_inputs import AS_OF_MS, DAY_MS, make_inputs

INPUTS = make_inputs(12)
SPEC = AlgorithmSpec("default", Configuration().family_weights)


def test_the_same_day_is_looked_into_once() -> None:
    steady = ScoreReliabilityCache(days=11)
    first = steady.reliability(INPUTS, SPEC)
    np.testing.assert_array_equal(first, reliability(INPUTS.daily, SPEC, 11))
    moved = replace(INPUTS, bid=INPUTS.bid * 1.01, as_of_ms=AS_OF_MS + 60_000)
    assert steady.reliability(moved, SPEC) is first
    assert steady.noise(moved, SPEC) is steady.noise(INPUTS, SPEC)


def test_another_bar_and_another_algorithm_are_looked_into_anew() -> None:
    steady = ScoreReliabilityCache(days=11)
    first = steady.reliability(INPUTS, SPEC)
    close = INPUTS.daily.close.copy()
    close[-1, 3] *= 1.5
    other = replace(INPUTS, daily=replace(INPUTS.daily, close=close))
    assert (steady.reliability(other, SPEC) != first).any()
    weights = {**SPEC.weights, Family.RISK: 0.1, Family.TECHNICAL: 0.45}
    assert (steady.reliability(INPUTS, replace(SPEC, weights=weights)) != first).any()


def test_a_day_that_is_not_over_yet_is_not_known() -> None:
    early = replace(INPUTS, as_of_ms=AS_OF_MS - DAY_MS)
    found = ScoreReliabilityCache(days=11).reliability(early, SPEC)
    assert (found != ScoreReliabilityCache(days=11).reliability(INPUTS, SPEC)).any()
