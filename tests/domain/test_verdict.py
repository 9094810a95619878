"""Verdicts: what votes come to, whatever their order."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.agents import AGENTS
from app.domain.signal import Direction
from app.domain.signal_rules import SignalRules
from app.domain.verdict import Evaluation, Recommendation, Verdict, Vote, concluded, judge
from tests.domain.evidence import evidence

RULES = SignalRules()
BUY = Direction.BUY


def vote(probability: float | None, advice: Recommendation | None, **changed: Any) -> Vote:
    return replace(Vote("x", 0.25, probability, advice, 0.9), **changed)


def said(*probabilities: float | None) -> Verdict:
    """Of agents with equal weight who recommend what they think."""
    votes: list[Vote] = []
    for one in probabilities:
        advice = None
        if one is not None:
            low = Recommendation.REJECT if one <= 0.4 else Recommendation.CONDITIONAL
            advice = Recommendation.APPROVE if one >= 0.6 else low
        votes.append(vote(one, advice, agent=f"agent-{len(votes)}"))
    return concluded(BUY, votes, RULES, is_by_skill=False)


@pytest.mark.parametrize(
    ("probabilities", "evaluation"),
    [
        ((0.9, 0.8, 0.85, 0.9), Evaluation.STRONG_APPROVE),
        ((0.7, 0.65, 0.6, 0.5), Evaluation.APPROVE),
        ((0.97, 0.5, 0.5, 0.55), Evaluation.CONDITIONAL),
        ((0.6, 0.6, 0.6, 0.55), Evaluation.REJECT),
        ((0.3, 0.4, 0.2, 0.3), Evaluation.REJECT),
        ((0.9, None, None, None), None),
        ((0.9, 0.9, None, None), Evaluation.STRONG_APPROVE),
        ((None, None, None, None), None),
    ],
)
def test_the_evaluation_follows_score_approvals_and_quorum(
    probabilities: tuple[float | None, ...], evaluation: Evaluation | None
) -> None:
    assert said(*probabilities).evaluation is evaluation


def test_who_abstains_counts_for_no_side() -> None:
    two, four = said(0.7, 0.8), said(0.7, 0.8, None, None)
    assert (two.score, two.approvals) == (four.score, four.approvals)
    assert (two.voted, four.voted) == (1.0, 0.5)


def test_thresholds_are_applied() -> None:
    votes = said(0.7, 0.7, 0.7, 0.7).votes
    for rules, evaluation in (
        (RULES, Evaluation.APPROVE),
        (replace(RULES, strong_consensus=0.65), Evaluation.STRONG_APPROVE),
        (replace(RULES, min_consensus=0.71), Evaluation.REJECT),
    ):
        assert concluded(BUY, votes, rules, is_by_skill=False).evaluation is evaluation
    half = said(0.7, 0.7, None, None).votes
    strict = replace(RULES, quorum=0.6)
    assert concluded(BUY, half, strict, is_by_skill=False).evaluation is None


def test_risk_forbids_what_all_others_approve_but_not_a_sale() -> None:
    wild = evidence(drawdown=-0.9)
    found = judge(BUY, wild, RULES)
    assert found.evaluation is Evaluation.REJECT
    assert found.reason.startswith("risk forbids it: it has fallen by 90%")
    assert [one.agent for one in found.votes if one.is_veto] == ["risk"]
    assert judge(Direction.SELL, wild, RULES).reason != found.reason
    assert not any(one.is_veto for one in judge(Direction.SELL, wild, RULES).votes)
    assert judge(BUY, evidence(), RULES).evaluation in {
        Evaluation.APPROVE,
        Evaluation.STRONG_APPROVE,
    }


def test_an_agent_that_is_undecided_says_so() -> None:
    votes = {one.agent: one for one in judge(BUY, evidence(volatility=0.9), RULES).votes}
    assert votes["risk"].probability == pytest.approx(0.5)
    assert votes["risk"].recommendation is Recommendation.CONDITIONAL


def test_dissent_is_marked_on_the_vote() -> None:
    yes = said(0.9, 0.9, 0.9, 0.1)
    assert [one.is_dissent for one in yes.votes] == [False, False, False, True]
    no = said(0.9, 0.1, 0.1, 0.1)
    assert [one.is_dissent for one in no.votes] == [True, False, False, False]


def test_a_sale_is_right_where_a_purchase_is_wrong() -> None:
    buy, sell = judge(BUY, evidence(), RULES), judge(Direction.SELL, evidence(), RULES)
    assert buy.score is not None
    assert sell.score == pytest.approx(1.0 - buy.score)
    assert [one.probability for one in buy.votes] == [one.probability for one in sell.votes]


@given(st.permutations(AGENTS))
def test_the_order_of_the_agents_does_not_matter(agents: list[Any]) -> None:
    assert judge(BUY, evidence(), RULES, agents=agents) == judge(BUY, evidence(), RULES)


def test_weights_of_skill_decide_who_is_heard() -> None:
    alone = judge(BUY, evidence(funding_rate=4.0), RULES, {"technical": 1.0})
    assert alone.evaluation is not Evaluation.REJECT
    assert alone.is_weighed_by_skill
    carry = judge(BUY, evidence(funding_rate=4.0), RULES, {"fundamental": 1.0})
    assert carry.evaluation is Evaluation.REJECT


def test_an_agent_that_is_added_is_asked() -> None:
    mute = replace(AGENTS[0], name="news", needs=("sentiment",))
    found = judge(BUY, evidence(), RULES, agents=(*AGENTS, mute))
    absent = next(one for one in found.votes if one.agent == "news")
    assert (absent.probability, absent.reason) == (None, "not known: sentiment")
    assert found.voted == pytest.approx(0.8)
