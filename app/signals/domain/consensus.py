"""Votes of the agents on one signal, and the verdict that they come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.configuration.domain.sections import SignalSettings
from app.foundation.decimal_math import to_millionths
from app.signals.domain.agents import AGENTS, Abstention, Agent, Evidence, Opinion
from app.signals.domain.models import Direction
from app.signals.domain.opinion_pool import clipped, pooled
from app.signals.domain.track_record import Record, claimed, is_proven, trust


class Recommendation(StrEnum):
    APPROVE = "APPROVE"
    REJECT = "REJECT"
    CONDITIONAL = "CONDITIONAL"


class Evaluation(StrEnum):
    STRONG_APPROVE = "STRONG_APPROVE"
    APPROVE = "APPROVE"
    CONDITIONAL = "CONDITIONAL"  # likely to be right, but most did not say so: not approved
    REJECT = "REJECT"


SOURCE: Final = "source"  # the name of the vote that a signal's own source has
_UNASKED: Final = Abstention("it was not asked")
_WORST_FIRST: Final = (
    None,
    Evaluation.REJECT,
    Evaluation.CONDITIONAL,
    Evaluation.APPROVE,
    Evaluation.STRONG_APPROVE,
)
_MILLION: Final = 1_000_000
_HALF: Final = 500_000  # millionths


@dataclass(frozen=True, slots=True)
class SourceClaim:
    """Strength and confidence that a source gives its signal, and its record for that type."""

    strength: float
    confidence: float
    record: Record = Record()  # noqa: RUF009  # it is frozen


@dataclass(frozen=True, slots=True)
class Vote:
    """The vote of one agent, or of the signal's source.

    A voter that abstained has neither probability nor recommendation.
    """

    agent: str
    weight: float  # of all agents, before abstentions; the source weighs as their mean
    probability: float | None = None  # that the symbol beats the universe median
    recommendation: Recommendation | None = None
    confidence: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None  # of an abstention or a veto
    is_veto: bool = False
    is_dissent: bool = False  # it recommended what was not done
    is_source: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`score` is the pooled probability that the signal is right; None where nobody knows."""

    evaluation: Evaluation | None  # None: too few voted, which is no rejection
    score: float | None
    approvals: float  # share of the weight that voted
    voted: float  # share of the agents' weight
    votes: tuple[Vote, ...]
    reason: str
    is_weighed_by_skill: bool  # else everybody weighs the same, and it may only be proposed


def judge(
    direction: Direction,
    evidence: Evidence,
    rules: SignalSettings,
    weights: Mapping[str, float] | None = None,
    agents: Sequence[Agent] = AGENTS,
    answers: Mapping[str, Opinion | Abstention] = MappingProxyType({}),
    source: SourceClaim | None = None,
) -> Verdict:
    """The verdict of `agents` on a signal; without `weights`, which follow skill, all are equal.

    `answers` are those of agents from outside, by name. `source` is one voter more. A pure
    function of its arguments: the order of the agents does not matter.
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
    if source is not None:
        own = _vote_of_source(source, equal or 1.0, direction, rules)
        votes = tuple(sorted((*votes, own), key=lambda vote: vote.agent))
    return concluded(
        direction,
        votes,
        rules,
        is_by_skill=weights is not None,
        is_source_proven=source is not None and is_proven(source.record, rules.min_outcomes),
    )


def _vote(
    agent: Agent,
    weight: float,
    direction: Direction,
    said: Opinion | Abstention,
    rules: SignalSettings,
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


def _vote_of_source(
    source: SourceClaim, weight: float, direction: Direction, rules: SignalSettings
) -> Vote:
    """1/2 +- k / 2 x strength x confidence: upwards for a purchase, downwards for a sale.

    Rounded to millionths: a stronger or surer signal never has a lower probability of being right.
    """
    if direction is Direction.NEUTRAL:
        said = "a neutral signal leans to no side"
        return Vote(SOURCE, weight, confidence=source.confidence, reason=said, is_source=True)
    believed = trust(source.record)
    away = believed * (claimed(source.strength, source.confidence) - 0.5)
    right = to_millionths(clipped(0.5 + away))
    beats = _MILLION - right if direction is Direction.SELL else right
    figures = {
        "strength": source.strength,
        "confidence": source.confidence,
        "trust": believed,
        "skill": source.record.skill,
        "outcomes": float(source.record.outcomes),
    }
    return Vote(
        agent=SOURCE,
        weight=weight,
        probability=beats / _MILLION,
        recommendation=_recommended(right / _MILLION, rules),
        confidence=source.confidence,
        figures=figures,
        is_source=True,
    )


def concluded(
    direction: Direction,
    votes: Sequence[Vote],
    rules: SignalSettings,
    *,
    is_by_skill: bool,
    is_source_proven: bool = False,
) -> Verdict:
    """The verdict that the votes come to; an abstention drops out of the weights.

    The quorum is of the agents alone. The vote of a source without proven skill may worsen the
    verdict of the agents, but never improve it.
    """
    whole = _counted(direction, votes, rules)
    evaluation, reason = whole.evaluation, whole.reason
    if not is_source_proven and any(vote.is_source for vote in votes):
        agents = [vote for vote in votes if not vote.is_source]
        alone = _counted(direction, agents, rules)
        if _WORST_FIRST.index(alone.evaluation) < _WORST_FIRST.index(evaluation):
            evaluation = alone.evaluation
            reason = f"without its source, whose skill is not proven: {alone.reason}"
    return replace(
        whole,
        evaluation=evaluation,
        votes=tuple(_beside(vote, evaluation) for vote in votes),
        reason=reason,
        is_weighed_by_skill=is_by_skill,
    )


def _counted(direction: Direction, votes: Sequence[Vote], rules: SignalSettings) -> Verdict:
    spoken = [vote for vote in votes if vote.probability is not None]
    total = sum(vote.weight for vote in votes if not vote.is_source)
    present = sum(vote.weight for vote in spoken if not vote.is_source)
    voted = present / total if total > 0.0 else 0.0
    score = pooled(
        [toward(direction, vote.probability) for vote in spoken if vote.probability is not None],
        [vote.weight for vote in spoken],
    )
    heard = sum(vote.weight for vote in spoken)
    favour = sum(vote.weight for vote in spoken if vote.recommendation is Recommendation.APPROVE)
    approvals = favour / heard if heard > 0.0 else 0.0
    evaluation, reason = _evaluated(score, approvals, voted, spoken, rules)
    return Verdict(evaluation, score, approvals, voted, tuple(votes), reason, False)


def toward(direction: Direction, probability: float) -> float:
    """The probability that a signal is right; that of a sale is that the symbol stays behind."""
    return 1.0 - probability if direction is Direction.SELL else probability


def _recommended(right: float, rules: SignalSettings) -> Recommendation:
    least = to_millionths(rules.min_consensus)
    if to_millionths(right) >= least:
        return Recommendation.APPROVE
    if to_millionths(right) <= _MILLION - least:
        return Recommendation.REJECT
    return Recommendation.CONDITIONAL


def _evaluated(
    score: float | None,
    approvals: float,
    voted: float,
    spoken: Sequence[Vote],
    rules: SignalSettings,
) -> tuple[Evaluation | None, str]:
    veto = next((vote for vote in spoken if vote.is_veto), None)
    if veto is not None:
        return Evaluation.REJECT, f"{veto.agent} forbids it: {veto.reason}"
    is_quorum = voted > 0.0 and to_millionths(voted) >= to_millionths(rules.quorum)
    if score is None or not is_quorum:
        return None, f"only {voted:.0%} of the weight has voted"
    said = f"{score:.0%} likely to be right, {approvals:.0%} of the votes approve"
    likely, in_favour = to_millionths(score), to_millionths(approvals)
    if likely < to_millionths(rules.min_consensus):
        return Evaluation.REJECT, said
    if in_favour < _HALF:
        return Evaluation.CONDITIONAL, said
    is_strong = min(likely, in_favour) >= to_millionths(rules.strong_consensus)
    return (Evaluation.STRONG_APPROVE if is_strong else Evaluation.APPROVE), said


def _beside(vote: Vote, evaluation: Evaluation | None) -> Vote:
    """The vote, marked where it recommended the opposite of what came out."""
    against = {
        Evaluation.REJECT: Recommendation.APPROVE,
        Evaluation.APPROVE: Recommendation.REJECT,
        Evaluation.STRONG_APPROVE: Recommendation.REJECT,
        Evaluation.CONDITIONAL: Recommendation.APPROVE,
    }
    if evaluation is None or vote.recommendation is not against[evaluation]:
        return vote
    return replace(vote, is_dissent=True)
