"""Verdicts: what votes come to, whatever their order."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.configuration.domain.sections import SignalSettings
from app.foundation.decimal_math import to_millionths
from app.signals.domain.agents import AGENTS
from app.signals.domain.consensus import (
    Consensus,
    Recommendation,
    SignalEvaluation,
    SourceClaim,
    Vote,
    conclude,
    reach_consensus,
)
from app.signals.domain.models import Direction
from app.signals.domain.track_record import CalibrationBin, ForecastRecord
from tests.support.signal_features import evidence

RULES = SignalSettings()
BUY = Direction.BUY


def vote(probability: float | None, advice: Recommendation | None, **changed: Any) -> Vote:
    return replace(Vote("x", 0.25, probability, advice, 0.9), **changed)


def said(*probabilities: float | None) -> Consensus:
    """Of agents with equal weight who recommend what they think."""
    votes: list[Vote] = []
    for one in probabilities:
        advice = None
        if one is not None:
            low = Recommendation.REJECT if one <= 0.4 else Recommendation.CONDITIONAL
            advice = Recommendation.APPROVE if one >= 0.6 else low
        votes.append(vote(one, advice, agent=f"agent-{len(votes)}"))
    return conclude(BUY, votes, RULES, is_by_skill=False)


@pytest.mark.parametrize(
    ("probabilities", "evaluation"),
    [
        ((0.9, 0.8, 0.85, 0.9), SignalEvaluation.STRONG_APPROVE),
        ((0.7, 0.65, 0.6, 0.5), SignalEvaluation.APPROVE),
        ((0.97, 0.5, 0.5, 0.55), SignalEvaluation.CONDITIONAL),
        ((0.6, 0.6, 0.6, 0.55), SignalEvaluation.REJECT),
        ((0.3, 0.4, 0.2, 0.3), SignalEvaluation.REJECT),
        ((0.9, None, None, None), None),
        ((0.9, 0.9, None, None), SignalEvaluation.STRONG_APPROVE),
        ((None, None, None, None), None),
    ],
)
def test_the_evaluation_follows_score_approvals_and_quorum(
    probabilities: tuple[float | None, ...], evaluation: SignalEvaluation | None
) -> None:
    assert said(*probabilities).evaluation is evaluation


def test_who_abstains_counts_for_no_side() -> None:
    two, four = said(0.7, 0.8), said(0.7, 0.8, None, None)
    assert (two.score, two.approvals) == (four.score, four.approvals)
    assert (two.voted, four.voted) == (1.0, 0.5)


def test_thresholds_are_applied() -> None:
    votes = said(0.7, 0.7, 0.7, 0.7).votes
    for rules, evaluation in (
        (RULES, SignalEvaluation.APPROVE),
        (replace(RULES, strong_consensus=0.65), SignalEvaluation.STRONG_APPROVE),
        (replace(RULES, min_consensus=0.71), SignalEvaluation.REJECT),
    ):
        assert conclude(BUY, votes, rules, is_by_skill=False).evaluation is evaluation
    half = said(0.7, 0.7, None, None).votes
    strict = replace(RULES, quorum=0.6)
    assert conclude(BUY, half, strict, is_by_skill=False).evaluation is None


def test_a_share_at_its_threshold_is_reached_however_its_sum_was_rounded() -> None:
    votes = [
        vote(0.9, Recommendation.APPROVE if at < 12 else None, agent=str(at), weight=0.05)
        for at in range(20)
    ]
    approvals = conclude(BUY, votes, RULES, is_by_skill=False).approvals
    assert approvals != 0.6, "twelve of twenty, off by an ulp"
    rules = replace(RULES, strong_consensus=0.6)
    assert (
        conclude(BUY, votes, rules, is_by_skill=False).evaluation is SignalEvaluation.STRONG_APPROVE
    )
    spoken = [replace(one, probability=None) if at >= 12 else one for at, one in enumerate(votes)]
    rules = replace(RULES, quorum=0.6)
    assert conclude(BUY, spoken, rules, is_by_skill=False).evaluation is not None


def record(outcomes: int, came: int, said: float = 0.9) -> ForecastRecord:
    squares = came * (1 - said) ** 2 + (outcomes - came) * said**2
    return ForecastRecord((CalibrationBin(9, outcomes, said * outcomes, came, squares),))


def test_a_source_votes_by_its_claim_and_its_track_record() -> None:
    def probability(direction: Direction, known: ForecastRecord) -> float | None:
        source = SourceClaim(0.8, 0.9, known)
        (one,) = (
            one
            for one in reach_consensus(direction, evidence(), RULES, source=source).votes
            if one.is_source
        )
        return one.probability

    assert probability(BUY, ForecastRecord()) == 0.572  # 1/2 + 1/2 x 0.2 x 0.72
    assert probability(Direction.SELL, ForecastRecord()) == 0.428
    assert probability(Direction.NEUTRAL, ForecastRecord()) is None
    # 150 outcomes, 140 of them right: BS = (140 x 0.01 + 10 x 0.81) / 150, skill 0.74667.
    skilled = record(150, 140)
    k = 0.2 + 0.8 * 150 / 200 * (1 - (140 * 0.01 + 10 * 0.81) / 150 / 0.25)
    assert probability(BUY, skilled) == pytest.approx(0.5 + 0.36 * k, abs=1e-6)
    assert probability(BUY, record(150, 50)) == 0.572, "worse than chance is as good as unknown"
    found = reach_consensus(
        BUY, evidence(), RULES, {"technical": 1.0}, source=SourceClaim(1.0, 1.0)
    )
    (own,) = (one for one in found.votes if one.is_source)
    assert own.weight == 1 / len(AGENTS), "as much as the mean agent"
    assert found.voted == 1.0, "of the agents"


ORDER = [None, *reversed(SignalEvaluation)]
PART = st.floats(0.0, 1.0)
DIRECTIONS = st.sampled_from(Direction)
FIGURES = st.fixed_dictionaries(
    {
        "nearness_to_high": st.sampled_from([-1.5, -0.2, 0.0]),
        "funding_rate": st.sampled_from([-2.0, -0.1, 0.3, 3.0]),
        "drawdown": st.sampled_from([-0.1, -0.9]),
        "volatility": st.sampled_from([0.3, 0.9, 2.0]),
        "impact": st.sampled_from([0.5, 20.0, 99.0, None]),
    }
)
RECORDS = st.builds(
    lambda outcomes, share: record(outcomes, round(outcomes * share)), st.integers(0, 400), PART
)
SETTINGS = st.builds(
    lambda least, more, quorum: SignalSettings(
        min_consensus=least, strong_consensus=min(1.0, least + more), quorum=quorum
    ),
    st.floats(0.5, 0.7),
    st.floats(0.0, 0.2),
    PART,
)


@given(DIRECTIONS, FIGURES, RECORDS, SETTINGS, st.tuples(PART, PART), st.tuples(PART, PART))
@settings(max_examples=400, deadline=None)
def test_verdicts_are_monotone_in_strength_and_confidence(
    direction: Direction,
    figures: dict[str, Any],
    known: ForecastRecord,
    rules: SignalSettings,
    strengths: tuple[float, float],
    confidences: tuple[float, float],
) -> None:
    (weak, strong), (unsure, sure) = sorted(strengths), sorted(confidences)
    shown = evidence(**figures)
    less, more = (
        reach_consensus(direction, shown, rules, source=SourceClaim(*claim, known))
        for claim in ((weak, unsure), (strong, sure))
    )
    assert ORDER.index(less.evaluation) <= ORDER.index(more.evaluation)
    assert (less.score is None) is (more.score is None)
    assert to_millionths(less.score or 0.0) <= to_millionths(more.score or 0.0)


@given(DIRECTIONS, FIGURES, SETTINGS, PART, PART)
@settings(max_examples=400, deadline=None)
def test_an_unknown_source_cannot_approve_itself(
    direction: Direction,
    figures: dict[str, Any],
    rules: SignalSettings,
    strength: float,
    confidence: float,
) -> None:
    shown = evidence(**figures)
    alone = reach_consensus(direction, shown, rules)
    for known in (ForecastRecord(), record(1, 1), record(49, 49), record(200, 100)):
        with_it = reach_consensus(
            direction, shown, rules, source=SourceClaim(strength, confidence, known)
        )
        assert ORDER.index(with_it.evaluation) <= ORDER.index(alone.evaluation)
    mute = replace(AGENTS[0], name="mute", needs=("sentiment",))
    claim = SourceClaim(strength, confidence, record(400, 400))
    assert reach_consensus(direction, shown, rules, agents=(mute,), source=claim).evaluation is None


def test_an_unknown_source_does_not_complete_a_majority() -> None:
    """One of three approves: with the source two of four would."""
    votes = said(0.97, 0.5, 0.5).votes
    own = vote(0.6, Recommendation.APPROVE, agent="source", is_source=True)
    unknown = conclude(BUY, (*votes, own), RULES, is_by_skill=False)
    assert unknown.evaluation is SignalEvaluation.CONDITIONAL
    assert unknown.reason.startswith("without its source, whose skill is not proven")
    proven = conclude(BUY, (*votes, own), RULES, is_by_skill=False, is_source_proven=True)
    assert proven.evaluation is SignalEvaluation.APPROVE


def test_risk_forbids_what_all_others_approve_but_not_a_sale() -> None:
    wild = evidence(drawdown=-0.9)
    found = reach_consensus(BUY, wild, RULES)
    assert found.evaluation is SignalEvaluation.REJECT
    assert found.reason.startswith("vetoed by risk: its drawdown 90%")
    assert [one.agent for one in found.votes if one.is_veto] == ["risk"]
    assert reach_consensus(Direction.SELL, wild, RULES).reason != found.reason
    assert not any(one.is_veto for one in reach_consensus(Direction.SELL, wild, RULES).votes)
    assert reach_consensus(BUY, evidence(), RULES).evaluation in {
        SignalEvaluation.APPROVE,
        SignalEvaluation.STRONG_APPROVE,
    }


def test_an_agent_that_is_undecided_says_so() -> None:
    votes = {one.agent: one for one in reach_consensus(BUY, evidence(volatility=0.9), RULES).votes}
    assert votes["risk"].probability == pytest.approx(0.5)
    assert votes["risk"].recommendation is Recommendation.CONDITIONAL


def test_dissent_is_marked_on_the_vote() -> None:
    yes = said(0.9, 0.9, 0.9, 0.1)
    assert [one.is_dissent for one in yes.votes] == [False, False, False, True]
    no = said(0.9, 0.1, 0.1, 0.1)
    assert [one.is_dissent for one in no.votes] == [True, False, False, False]


def test_a_sale_is_right_where_a_purchase_is_wrong() -> None:
    buy, sell = (
        reach_consensus(BUY, evidence(), RULES),
        reach_consensus(Direction.SELL, evidence(), RULES),
    )
    assert buy.score is not None
    assert sell.score == pytest.approx(1.0 - buy.score)
    assert [one.probability for one in buy.votes] == [one.probability for one in sell.votes]


@given(st.permutations(AGENTS))
def test_the_order_of_the_agents_does_not_matter(agents: list[Any]) -> None:
    assert reach_consensus(BUY, evidence(), RULES, agents=agents) == reach_consensus(
        BUY, evidence(), RULES
    )


def test_weights_of_skill_decide_who_is_heard() -> None:
    alone = reach_consensus(BUY, evidence(funding_rate=4.0), RULES, {"technical": 1.0})
    assert alone.evaluation is not SignalEvaluation.REJECT
    assert alone.is_skill_weighted
    carry = reach_consensus(BUY, evidence(funding_rate=4.0), RULES, {"fundamental": 1.0})
    assert carry.evaluation is SignalEvaluation.REJECT


def test_an_agent_that_is_added_is_asked() -> None:
    mute = replace(AGENTS[0], name="news", needs=("sentiment",))
    found = reach_consensus(BUY, evidence(), RULES, agents=(*AGENTS, mute))
    absent = next(one for one in found.votes if one.agent == "news")
    assert (absent.probability, absent.reason) == (None, "unknown: sentiment")
    assert found.voted == pytest.approx(0.8)
