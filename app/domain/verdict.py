"""Votes of the agents on one signal, and the verdict that they come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.domain.agents import AGENTS, Abstention, Agent, Evidence, Opinion
from app.domain.exact import ONE, to_millionths
from app.domain.pooling import pooled
from app.domain.signal import Direction
from app.domain.signal_rules import SignalRules


class Recommendation(StrEnum):
    APPROVE = "APPROVE"
    REJECT = "REJECT"
    CONDITIONAL = "CONDITIONAL"


class Evaluation(StrEnum):
    STRONG_APPROVE = "STRONG_APPROVE"
    APPROVE = "APPROVE"
    CONDITIONAL = "CONDITIONAL"  # right as far as one can tell, but most did not say so
    REJECT = "REJECT"


_UNASKED: Final = Abstention("it was not asked")


@dataclass(frozen=True, slots=True)
class Vote:
    """What one agent said; one that abstained has neither probability nor recommendation."""

    agent: str
    weight: float  # of all agents, before abstentions
    probability: float | None = None  # that the symbol beats the universe median
    recommendation: Recommendation | None = None
    confidence: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None  # of an abstention or a veto
    is_veto: bool = False
    is_dissent: bool = False  # it recommended what was not done


@dataclass(frozen=True, slots=True)
class Verdict:
    """`score` is the pooled probability that the signal is right; None where nobody knows."""

    evaluation: Evaluation | None  # None: too few voted, which is no rejection
    score: float | None
    approvals: float  # share of the weight that voted
    voted: float  # share of all weight
    votes: tuple[Vote, ...]
    reason: str
    is_weighed_by_skill: bool  # else everybody weighs the same, and it may only be proposed


def judge(
    direction: Direction,
    evidence: Evidence,
    rules: SignalRules,
    weights: Mapping[str, float] | None = None,
    agents: Sequence[Agent] = AGENTS,
    answers: Mapping[str, Opinion | Abstention] = MappingProxyType({}),
) -> Verdict:
    """The verdict of `agents` on a signal; without `weights`, which follow skill, all are equal.

    `answers` are those of agents from outside, by name. A pure function of its arguments: the
    order of the agents does not matter.
    """
    ordered = sorted(agents, key=lambda agent: agent.name)
    equal = 1.0 / len(ordered) if ordered else 0.0
    votes = tuple(
        _vote(
            agent,
            equal if weights is None else weights.get(agent.name, 0.0),
            direction,
            answers.get(agent.name, _UNASKED) if agent.is_outside else agent(evidence, rules),
            rules,
        )
        for agent in ordered
    )
    return concluded(direction, votes, rules, is_by_skill=weights is not None)


def _vote(
    agent: Agent,
    weight: float,
    direction: Direction,
    said: Opinion | Abstention,
    rules: SignalRules,
) -> Vote:
    if isinstance(said, Abstention):
        return Vote(agent.name, weight, reason=said.reason)
    vetoes = agent.may_veto and said.veto is not None and direction is not Direction.SELL
    right = toward(direction, said.probability)
    return Vote(
        agent=agent.name,
        weight=weight,
        probability=said.probability,
        recommendation=Recommendation.REJECT if vetoes else _recommended(right, rules),
        confidence=said.confidence,
        figures=said.figures,
        reason=said.veto if vetoes else None,
        is_veto=vetoes,
    )


def concluded(
    direction: Direction, votes: Sequence[Vote], rules: SignalRules, *, is_by_skill: bool
) -> Verdict:
    """What the votes come to. Who abstains drops out of the weights and counts for no side."""
    spoken = [vote for vote in votes if vote.probability is not None]
    total = sum(vote.weight for vote in votes)
    heard = sum(vote.weight for vote in spoken)
    voted = heard / total if total > 0.0 else 0.0
    score = pooled(
        [toward(direction, vote.probability) for vote in spoken if vote.probability is not None],
        [vote.weight for vote in spoken],
    )
    favour = sum(vote.weight for vote in spoken if vote.recommendation is Recommendation.APPROVE)
    approvals = favour / heard if heard > 0.0 else 0.0
    evaluation, reason = _evaluated(score, approvals, voted, spoken, rules)
    return Verdict(
        evaluation=evaluation,
        score=score,
        approvals=approvals,
        voted=voted,
        votes=tuple(_beside(vote, evaluation) for vote in votes),
        reason=reason,
        is_weighed_by_skill=is_by_skill,
    )


def toward(direction: Direction, probability: float) -> float:
    """The probability that a signal is right; that of a sale is that the symbol stays behind."""
    return 1.0 - probability if direction is Direction.SELL else probability


def _recommended(right: float, rules: SignalRules) -> Recommendation:
    least = to_millionths(rules.min_consensus)
    if to_millionths(right) >= least:
        return Recommendation.APPROVE
    if to_millionths(right) <= ONE - least:
        return Recommendation.REJECT
    return Recommendation.CONDITIONAL


def _evaluated(
    score: float | None,
    approvals: float,
    voted: float,
    spoken: Sequence[Vote],
    rules: SignalRules,
) -> tuple[Evaluation | None, str]:
    veto = next((vote for vote in spoken if vote.is_veto), None)
    if veto is not None:
        return Evaluation.REJECT, f"{veto.agent} forbids it: {veto.reason}"
    if score is None or to_millionths(voted) < to_millionths(rules.quorum):
        return None, f"only {voted:.0%} of the weight has voted"
    said = f"{score:.0%} likely to be right, {approvals:.0%} of the votes approve"
    right, agree = to_millionths(score), to_millionths(approvals)
    if right < to_millionths(rules.min_consensus):
        return Evaluation.REJECT, said
    if 2 * agree < ONE:
        return Evaluation.CONDITIONAL, said
    strong = min(right, agree) >= to_millionths(rules.strong_consensus)
    return (Evaluation.STRONG_APPROVE if strong else Evaluation.APPROVE), said


def _beside(vote: Vote, evaluation: Evaluation | None) -> Vote:
    """The vote, marked where it recommended the opposite of what came out."""
    against = {
        Evaluation.REJECT: Recommendation.APPROVE,
        Evaluation.APPROVE: Recommendation.REJECT,
        Evaluation.STRONG_APPROVE: Recommendation.REJECT,
        Evaluation.CONDITIONAL: Recommendation.REJECT,
    }
    if evaluation is None or vote.recommendation is not against[evaluation]:
        return vote
    return replace(vote, is_dissent=True)
