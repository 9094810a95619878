"""Votes of agents on a signal, and the consensus that they reach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.configuration.domain.sections import SignalSettings
from app.foundation.decimal_math import to_millionths
from app.signals.domain.agents import (
    AGENTS,
    Abstention,
    Agent,
    AgentVote,
    SignalFeatures,
    UniverseContext,
)
from app.signals.domain.models import Direction
from app.signals.domain.opinion_pool import clip_probability, pool_probabilities
from app.signals.domain.track_record import ForecastRecord, claimed_probability, is_proven, trust


class Recommendation(StrEnum):
    APPROVE = "APPROVE"
    REJECT = "REJECT"
    CONDITIONAL = "CONDITIONAL"


class SignalEvaluation(StrEnum):
    STRONG_APPROVE = "STRONG_APPROVE"
    APPROVE = "APPROVE"
    CONDITIONAL = "CONDITIONAL"  # probable, but without a majority: not approved
    REJECT = "REJECT"


SOURCE: Final = "source"  # name of the source's own vote
_NOT_ASKED: Final = Abstention("no answer was requested")
_WORST_FIRST: Final = (
    None,
    SignalEvaluation.REJECT,
    SignalEvaluation.CONDITIONAL,
    SignalEvaluation.APPROVE,
    SignalEvaluation.STRONG_APPROVE,
)
_MILLION: Final = 1_000_000
_HALF: Final = 500_000  # millionths


@dataclass(frozen=True, slots=True)
class SourceClaim:
    """Strength and confidence of a source's signal, and its record for that type."""

    strength: float
    confidence: float
    record: ForecastRecord = ForecastRecord()  # noqa: RUF009  # the default is frozen


@dataclass(frozen=True, slots=True)
class Vote:
    """Vote of one agent, or of the signal's source.

    An abstention has neither probability nor recommendation.
    """

    agent: str
    weight: float  # share of all agents, before abstentions; the source has their mean weight
    probability: float | None = None  # probability that the symbol outperforms the median
    recommendation: Recommendation | None = None
    confidence: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None  # reason of an abstention or a veto
    is_veto: bool = False
    is_dissent: bool = False  # recommendation against the consensus
    is_source: bool = False


@dataclass(frozen=True, slots=True)
class Consensus:
    """Result of a vote; `score` is the pooled probability of a right signal, None if unknown."""

    evaluation: SignalEvaluation | None  # None: too few votes, which is no rejection
    score: float | None
    approvals: float  # share of the weight that voted
    voted: float  # share of the agents' weight
    votes: tuple[Vote, ...]
    reason: str
    is_skill_weighted: bool  # False: equal weights, and the signal may only be proposed


@dataclass(frozen=True, slots=True)
class VerdictSnapshot:
    """Every input of a consensus; the settings are those of `configuration_version`.

    `universe` is None where it is stored beside, once for all signals of a board. `votes` and
    `abstentions` are the answers of external agents.
    """

    configuration_version: int
    board_id: str
    symbol: str
    direction: Direction
    figures: Mapping[str, float]
    confidence: float | None
    blocking_reason: str | None
    universe: UniverseContext | None
    source: SourceClaim
    weights: Mapping[str, float] | None
    votes: Mapping[str, AgentVote]
    abstentions: Mapping[str, Abstention]

    def features(self) -> SignalFeatures:
        """Figures available to the agents. Raises ValueError without a universe."""
        if self.universe is None:
            raise ValueError("the universe of the board is missing")
        return SignalFeatures(
            self.symbol, self.figures, self.confidence, self.universe, self.blocking_reason
        )


def consensus_from_snapshot(
    given: VerdictSnapshot, rules: SignalSettings, agents: Sequence[Agent] = AGENTS
) -> Consensus:
    """Computes a consensus; a function of its arguments alone."""
    answers: dict[str, AgentVote | Abstention] = {**given.votes, **given.abstentions}
    return reach_consensus(
        given.direction, given.features(), rules, given.weights, agents, answers, given.source
    )


def reach_consensus(
    direction: Direction,
    features: SignalFeatures,
    rules: SignalSettings,
    weights: Mapping[str, float] | None = None,
    agents: Sequence[Agent] = AGENTS,
    answers: Mapping[str, AgentVote | Abstention] = MappingProxyType({}),
    source: SourceClaim | None = None,
) -> Consensus:
    """Computes the consensus of `agents` on a signal; without `weights` by skill all are equal.

    `answers` are the answers of external agents, by name. `source` is an additional voter. The
    result does not depend on the order of the agents.
    """
    ordered = sorted(agents, key=lambda agent: agent.name)
    equal = 1.0 / len(ordered) if ordered else 0.0
    votes = tuple(
        _cast_vote(
            agent,
            equal if weights is None else weights.get(agent.name, 0.0),
            direction,
            answers.get(agent.name, _NOT_ASKED) if agent.is_external else agent(features, rules),
            rules,
        )
        for agent in ordered
    )
    if source is not None:
        own = _cast_source_vote(source, equal or 1.0, direction, rules)
        votes = tuple(sorted((*votes, own), key=lambda vote: vote.agent))
    return conclude(
        direction,
        votes,
        rules,
        is_by_skill=weights is not None,
        is_source_proven=source is not None and is_proven(source.record, rules.min_outcomes),
    )


def _cast_vote(
    agent: Agent,
    weight: float,
    direction: Direction,
    answer: AgentVote | Abstention,
    rules: SignalSettings,
) -> Vote:
    if isinstance(answer, Abstention):
        return Vote(agent.name, weight, reason=answer.reason)
    is_veto = agent.may_veto and answer.veto is not None and direction is not Direction.SELL
    right = probability_right(direction, answer.probability)
    return Vote(
        agent=agent.name,
        weight=weight,
        probability=answer.probability,
        recommendation=Recommendation.REJECT if is_veto else _recommend(right, rules),
        confidence=answer.confidence,
        figures=answer.figures,
        reason=answer.veto if is_veto else None,
        is_veto=is_veto,
    )


def _cast_source_vote(
    source: SourceClaim, weight: float, direction: Direction, rules: SignalSettings
) -> Vote:
    """Vote of the source, 1/2 +- k / 2 x strength x confidence: up to buy, down to sell.

    Rounded to millionths, so that a stronger or more confident signal is never less probable.
    """
    if direction is Direction.NEUTRAL:
        reason = "a neutral signal has no direction"
        return Vote(SOURCE, weight, confidence=source.confidence, reason=reason, is_source=True)
    trust_factor = trust(source.record)
    offset = trust_factor * (claimed_probability(source.strength, source.confidence) - 0.5)
    right = to_millionths(clip_probability(0.5 + offset))
    outperforms = _MILLION - right if direction is Direction.SELL else right
    figures = {
        "strength": source.strength,
        "confidence": source.confidence,
        "trust": trust_factor,
        "skill": source.record.skill,
        "outcomes": float(source.record.outcomes),
    }
    return Vote(
        agent=SOURCE,
        weight=weight,
        probability=outperforms / _MILLION,
        recommendation=_recommend(right / _MILLION, rules),
        confidence=source.confidence,
        figures=figures,
        is_source=True,
    )


def conclude(
    direction: Direction,
    votes: Sequence[Vote],
    rules: SignalSettings,
    *,
    is_by_skill: bool,
    is_source_proven: bool = False,
) -> Consensus:
    """Computes the consensus of votes; an abstention has no weight.

    The quorum counts agents only. The vote of a source without proven skill may worsen the
    consensus, but never improve it.
    """
    consensus = _count_votes(direction, votes, rules)
    evaluation, reason = consensus.evaluation, consensus.reason
    if not is_source_proven and any(vote.is_source for vote in votes):
        agents = [vote for vote in votes if not vote.is_source]
        of_agents = _count_votes(direction, agents, rules)
        if _WORST_FIRST.index(of_agents.evaluation) < _WORST_FIRST.index(evaluation):
            evaluation = of_agents.evaluation
            reason = f"without its source, whose skill is not proven: {of_agents.reason}"
    return replace(
        consensus,
        evaluation=evaluation,
        votes=tuple(_mark_dissent(vote, evaluation) for vote in votes),
        reason=reason,
        is_skill_weighted=is_by_skill,
    )


def _count_votes(direction: Direction, votes: Sequence[Vote], rules: SignalSettings) -> Consensus:
    cast = [vote for vote in votes if vote.probability is not None]
    total = sum(vote.weight for vote in votes if not vote.is_source)
    present = sum(vote.weight for vote in cast if not vote.is_source)
    voted = present / total if total > 0.0 else 0.0
    score = pool_probabilities(
        [
            probability_right(direction, vote.probability)
            for vote in cast
            if vote.probability is not None
        ],
        [vote.weight for vote in cast],
    )
    cast_weight = sum(vote.weight for vote in cast)
    approving = sum(vote.weight for vote in cast if vote.recommendation is Recommendation.APPROVE)
    approvals = approving / cast_weight if cast_weight > 0.0 else 0.0
    evaluation, reason = _classify(score, approvals, voted, cast, rules)
    return Consensus(evaluation, score, approvals, voted, tuple(votes), reason, False)


def probability_right(direction: Direction, probability: float) -> float:
    """Probability that a signal is right; a sale is right if the symbol underperforms."""
    return 1.0 - probability if direction is Direction.SELL else probability


def _recommend(right: float, rules: SignalSettings) -> Recommendation:
    least = to_millionths(rules.min_consensus)
    if to_millionths(right) >= least:
        return Recommendation.APPROVE
    if to_millionths(right) <= _MILLION - least:
        return Recommendation.REJECT
    return Recommendation.CONDITIONAL


def _classify(
    score: float | None,
    approvals: float,
    voted: float,
    cast: Sequence[Vote],
    rules: SignalSettings,
) -> tuple[SignalEvaluation | None, str]:
    veto = next((vote for vote in cast if vote.is_veto), None)
    if veto is not None:
        return SignalEvaluation.REJECT, f"vetoed by {veto.agent}: {veto.reason}"
    is_quorum = voted > 0.0 and to_millionths(voted) >= to_millionths(rules.quorum)
    if score is None or not is_quorum:
        return None, f"only {voted:.0%} of the weight has voted"
    reason = f"{score:.0%} likely to be right, {approvals:.0%} of the votes approve"
    likely, in_favour = to_millionths(score), to_millionths(approvals)
    if likely < to_millionths(rules.min_consensus):
        return SignalEvaluation.REJECT, reason
    if in_favour < _HALF:
        return SignalEvaluation.CONDITIONAL, reason
    is_strong = min(likely, in_favour) >= to_millionths(rules.strong_consensus)
    return (SignalEvaluation.STRONG_APPROVE if is_strong else SignalEvaluation.APPROVE), reason


def _mark_dissent(vote: Vote, evaluation: SignalEvaluation | None) -> Vote:
    """Returns the vote, marked if it recommended the opposite of the consensus."""
    opposite = {
        SignalEvaluation.REJECT: Recommendation.APPROVE,
        SignalEvaluation.APPROVE: Recommendation.REJECT,
        SignalEvaluation.STRONG_APPROVE: Recommendation.REJECT,
        SignalEvaluation.CONDITIONAL: Recommendation.APPROVE,
    }
    if evaluation is None or vote.recommendation is not opposite[evaluation]:
        return vote
    return replace(vote, is_dissent=True)
