"""Pooling of probabilities: golden values, and what holds for any votes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.signals.domain.opinion_pool import (
    MAX_PROBABILITY,
    MIN_PROBABILITY,
    amplification,
    brier_score,
    brier_skill,
    clip_probability,
    pool_probabilities,
    shrunk_brier_score,
    weights_from_skill,
)

SAID = (0.6, 0.7, 0.55, 0.4)
PROBABILITY = st.floats(0.0, 1.0)
VOTES = st.lists(st.tuples(PROBABILITY, st.floats(0.01, 1.0)), min_size=1, max_size=6)


def apart(votes: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Probabilities and weights."""
    return [one for one, _ in votes], [weight for _, weight in votes]


def test_pooled_golden_values() -> None:
    weights = (0.4, 0.3, 0.2, 0.1)
    assert pool_probabilities(SAID, weights) == pytest.approx(0.602516835899, abs=1e-12)
    assert pool_probabilities(SAID, weights, 1.3) == pytest.approx(0.631987320460, abs=1e-12)
    stretched = pool_probabilities(SAID, (1.0,) * 4, amplification(4, 0.5))
    assert stretched == pytest.approx(0.603288790826, abs=1e-12)


def test_amplification_goes_from_a_plain_mean_to_independent_votes() -> None:
    assert amplification(4, 1.0) == 1.0
    assert amplification(4, 0.0) == 4.0


def test_brier_and_weights_golden_values() -> None:
    came = (True, True, False, False, False)
    assert brier_score((0.9, 0.7, 0.2, 0.6, 0.3), came) == pytest.approx(0.118, abs=1e-15)
    assert brier_score((), ()) is None
    scores, numbers = (0.20, 0.24, 0.25, 0.30), (200, 100, 50, 20)
    skills = {
        f"agent-{at}": brier_skill(shrunk_brier_score(score * number, number))
        for at, (score, number) in enumerate(zip(scores, numbers, strict=True))
    }
    weights = weights_from_skill(skills)
    assert weights is not None
    assert list(weights.values()) == pytest.approx([0.857143, 0.142857, 0.0, 0.0], abs=1e-6)


def test_where_nobody_has_skill_nobody_has_a_weight() -> None:
    assert weights_from_skill({"one": 0.0, "other": -0.2}) is None
    assert pool_probabilities((0.7,), (0.0,)) is None
    assert pool_probabilities((), ()) is None


def test_votes_and_weights_must_belong_together() -> None:
    for probabilities, weights in (((0.5,), ()), ((0.5,), (-1.0,))):
        with pytest.raises(ValueError, match="weight"):
            pool_probabilities(probabilities, weights)


@settings(max_examples=40)
@given(VOTES)
def test_the_pool_lies_within_the_votes(votes: list[tuple[float, float]]) -> None:
    said = [clip_probability(one) for one, _ in votes]
    found = pool_probabilities(*apart(votes))
    assert found is not None
    assert min(said) - 1e-12 <= found <= max(said) + 1e-12
    assert MIN_PROBABILITY - 1e-12 <= found <= MAX_PROBABILITY + 1e-12


@given(st.permutations([(0.6, 0.4), (0.7, 0.3), (0.55, 0.2), (0.4, 0.1), (0.9, 0.3)]))
def test_the_order_of_the_votes_does_not_matter(votes: list[tuple[float, float]]) -> None:
    other = pool_probabilities(*apart(sorted(votes)))
    assert pool_probabilities(*apart(votes)) == other, "not in the last digit either"


@settings(max_examples=40)
@given(VOTES, st.integers(0, 5), PROBABILITY)
def test_a_higher_vote_never_lowers_the_pool(
    votes: list[tuple[float, float]], at: int, higher: float
) -> None:
    place = at % len(votes)
    said, weights = apart(votes)
    raised = [*said]
    raised[place] = max(said[place], higher)
    before, after = pool_probabilities(said, weights), pool_probabilities(raised, weights)
    assert before is not None
    assert after is not None
    assert after >= before - 1e-12
