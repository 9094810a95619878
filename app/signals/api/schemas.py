"""Response schemas of signals: state, verdict and votes."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field

from app.configuration.domain.sections import AutomationMode
from app.foundation.http.schemas import Json, Out, Ratio, Raw, Score, Share, UtcTime
from app.portfolio.domain.proposals import MembershipMove
from app.signals.domain.consensus import Consensus, Recommendation, SignalEvaluation, Vote
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Direction, Signal, SignalEffect, SignalState
from app.signals.domain.outcomes import SignalOutcome
from app.signals.domain.track_record import BINS, AgentCounts, CalibrationBin, ForecastRecord, trust
from app.signals.services.service import SignalStatistics


class VoteOut(Out):
    """Vote of one agent, or of the signal's source; an abstention has no probability."""

    agent: str = Field(examples=["technical"], description="`source` for the vote of the source.")
    is_source: bool = Field(
        description="True for the vote of the source: 1/2 +- 1/2 x trust x strength x confidence, "
        "with the trust of its record for this type of signal; see `figures`."
    )
    weight: Share = Field(description="Share of all agents; the source has their mean weight.")
    probability: Score | None = Field(
        description="Probability that the symbol outperforms the median over the horizon."
    )
    recommendation: Recommendation | None = Field(
        description="Recommendation; null for an abstention."
    )
    confidence: Score | None = Field(description="Confidence of the agent; null for an abstention.")
    figures: dict[str, Raw] = Field(description="Figures that the vote used.")
    reason: str | None = Field(description="Reason of an abstention or a veto.")
    is_veto: bool = Field(description="True for a veto, which forbids the action.")
    is_dissent: bool = Field(description="True for a recommendation against the verdict.")

    @classmethod
    def of(cls, vote: Vote) -> Self:
        return cls.model_validate(vote)


class VerdictOut(Out):
    """Verdict of the agents and its basis."""

    evaluation: SignalEvaluation | None = Field(
        description="Null where too few agents have voted. CONDITIONAL is probable but without a "
        "majority of votes, and is no approval."
    )
    consensus_score: Score | None = Field(description="Probability that the signal is right.")
    approval_share: Share = Field(description="Share of approving votes, by weight.")
    voted_share: Share = Field(description="Share of agents that voted, by weight.")
    reason: str
    is_skill_weighted: bool = Field(description="False while all agents have equal weights.")
    board_id: str | None = Field(description="Scoring run that the agents used.")
    configuration_version: int | None
    votes: list[VoteOut] = Field(description="Votes of the agents.")

    @classmethod
    def of(cls, verdict: Consensus, evaluated: EvaluatedSignal) -> Self:
        return cls(
            evaluation=verdict.evaluation,
            consensus_score=verdict.score,
            approval_share=verdict.approvals,
            voted_share=verdict.voted,
            reason=verdict.reason,
            is_skill_weighted=verdict.is_skill_weighted,
            board_id=evaluated.board_id,
            configuration_version=evaluated.configuration_version,
            votes=[VoteOut.of(vote) for vote in verdict.votes],
        )


class EffectOut(Out):
    """Effect of an approved signal on the portfolio."""

    automation: AutomationMode = Field(description="Automation level that applied.")
    move: MembershipMove | None = Field(description="Membership change that the signal requests.")
    symbol: str | None
    old_symbol: str | None = Field(description="Member to be replaced.")
    note: str | None = Field(description="Reason of a missing effect.")
    at: UtcTime = Field(description="UTC time of the effect.")
    proposal_id: str | None
    version: int | None = Field(description="Resulting version of the portfolio.")

    @classmethod
    def of(cls, effect: SignalEffect) -> Self:
        step = effect.step
        return cls(
            automation=effect.automation,
            move=None if step is None else step.move,
            symbol=None if step is None else step.symbol,
            old_symbol=None if step is None else step.old_symbol,
            note=effect.note,
            at=effect.at,
            proposal_id=effect.proposal_id,
            version=effect.version,
        )


class OutcomeOut(Out):
    """Return of the symbol over the horizon after the verdict."""

    starts_at: UtcTime = Field(description="The first full hour after the verdict.")
    ends_at: UtcTime = Field(description="UTC time at which the horizon ends.")
    booked_at: UtcTime | None = Field(description="Null while the outcome is open.")
    outperformed_median: bool | None = Field(description="Null while unknown.")
    gain: Share | None = Field(description="Return of the symbol, as a fraction.")
    median: Share | None = Field(description="Median return of the universe, as a fraction.")
    universe_size: int | None = Field(description="Number of symbols in the median.")
    reason: str | None = Field(description="Reason of an unknown outcome.")

    @classmethod
    def of(cls, outcome: SignalOutcome) -> Self:
        return cls(
            starts_at=outcome.window.starts_at,
            ends_at=outcome.window.ends_at,
            booked_at=outcome.booked_at,
            outperformed_median=outcome.outperformed,
            gain=outcome.gain,
            median=outcome.median,
            universe_size=outcome.universe_size,
            reason=outcome.reason,
        )


class PendingSignalOut(Out):
    """Signal as sent by its source, with its state."""

    signal_id: str
    source_name: str
    source_signal_id: str | None
    signal_type: str
    symbol: str | None
    signal_direction: Direction
    signal_strength: Score
    confidence_level: Score
    signal_data: Json = Field(description="Data of the source.")
    unused_fields: list[str] = Field(
        description="Fields that the service does not use.", examples=[["signal_data.rule"]]
    )
    signal_timestamp: UtcTime | None
    received_at: UtcTime
    expires_at: UtcTime
    state: SignalState = Field(description="State of the signal.")
    reason: str | None = Field(description="Reason of the state.")
    attempts: int = Field(description="Number of evaluation attempts.")
    completed_at: UtcTime | None = Field(description="Time when the signal left the queue.")

    @classmethod
    def of(cls, signal: Signal) -> Self:
        return cls(**signal_fields(signal))


class SignalOut(PendingSignalOut):
    """Signal with its last verdict."""

    verdict: VerdictOut | None = Field(description="Null before the evaluation.")
    effect: EffectOut | None = Field(description="Null until decided.")
    outcome: OutcomeOut | None = Field(description="Null without a verdict.")

    @classmethod
    def from_evaluated(cls, evaluated: EvaluatedSignal) -> Self:
        verdict = None if evaluated.verdict is None else VerdictOut.of(evaluated.verdict, evaluated)
        effect = None if evaluated.effect is None else EffectOut.of(evaluated.effect)
        outcome = None if evaluated.outcome is None else OutcomeOut.of(evaluated.outcome)
        fields = signal_fields(evaluated.signal)
        return cls(**fields, verdict=verdict, effect=effect, outcome=outcome)


def signal_fields(signal: Signal) -> Mapping[str, Any]:
    """JSON fields of a signal."""
    claim = signal.claim
    return {
        "signal_id": signal.signal_id,
        "source_name": claim.source,
        "source_signal_id": claim.source_id,
        "signal_type": claim.type,
        "symbol": claim.symbol,
        "signal_direction": claim.direction,
        "signal_strength": claim.strength,
        "confidence_level": claim.confidence,
        "signal_data": claim.data,
        "unused_fields": list(claim.unused_fields),
        "signal_timestamp": claim.claimed_at,
        "received_at": signal.received_at,
        "expires_at": signal.expires_at,
        "state": signal.state,
        "reason": signal.reason,
        "attempts": signal.attempts,
        "completed_at": signal.completed_at,
    }


_NO_RECORD = ForecastRecord()


class SignalQueueOut(Out):
    """Number and age of waiting signals."""

    waiting: int = Field(description="Signals that wait for their evaluation.")
    oldest_received_at: UtcTime | None = Field(description="Arrival of the oldest waiting signal.")
    failed: int = Field(description="Signals that could not be evaluated; may be retried.")
    open_outcomes: int = Field(description="Verdicts whose outcome is not known yet.")


class CalibrationBinOut(Out):
    """Forecasts of similar probability and their outcomes."""

    from_probability: Share = Field(examples=[0.7], description="Lower end of the bin.")
    outcomes: int = Field(description="Number of outcomes in the bin.")
    mean_forecast: Score = Field(description="Mean forecast probability.")
    observed_frequency: Score = Field(description="Share of successes.")

    @classmethod
    def of(cls, calibration_bin: CalibrationBin) -> Self:
        outcomes = calibration_bin.outcomes
        return cls(
            from_probability=calibration_bin.number / BINS,
            outcomes=outcomes,
            mean_forecast=calibration_bin.forecast_sum / outcomes,
            observed_frequency=calibration_bin.occurrences / outcomes,
        )


class RecordOut(Out):
    """Track record of all time; null before the first outcome."""

    outcomes: int = Field(description="Overlapping windows of one symbol count once.")
    brier_score: Score | None = Field(description="A constant forecast of one half has 0.25.")
    skill: Ratio | None = Field(
        description="1 - BS / 0.25, with 50 outcomes of chance before the first: 0 is chance."
    )
    calibration_error: Score | None = Field(
        description="Mean distance of forecast and observed frequency, over bins of a tenth."
    )
    calibration: list[CalibrationBinOut] = Field(
        description="Forecast and observed frequency by bins of a tenth."
    )

    @classmethod
    def of(cls, record: ForecastRecord) -> Self:
        return cls(
            outcomes=record.outcomes,
            brier_score=record.brier,
            skill=record.skill if record.outcomes else None,
            calibration_error=record.calibration_error,
            calibration=[CalibrationBinOut.of(one) for one in record.bins],
        )


class SourceRecordOut(Out):
    """Track record of a source for one type of its signals."""

    signal_type: str
    trust: Score = Field(
        description="Factor of the source's claim: 0.2 + 0.8 x n / (n + 50) x max(0, skill)."
    )
    record: RecordOut = Field(
        description="Claimed probability, 1/2 + 1/2 x strength x confidence, against the outcomes "
        "of evaluated signals. `skill` has the factor n / (n + 50)."
    )


class SourceStatisticsOut(Out):
    source: str = Field(description="Name of the source.")
    states: dict[str, int] = Field(description="Number of signals by state.")
    records: list[SourceRecordOut] = Field(
        description="By type of signal; without an outcome the trust is 0.2."
    )


class AgentStatisticsOut(Out):
    """Votes of one agent and their outcomes."""

    agent: str = Field(description="Name of the agent.")
    votes: int = Field(description="Number of votes.")
    abstentions: int = Field(description="Number of abstentions.")
    approvals: int = Field(description="Number of votes to approve.")
    rejections: int = Field(description="Number of votes to reject.")
    conditionals: int = Field(description="Number of conditional votes.")
    vetoes: int = Field(description="Number of vetoes.")
    dissents: int = Field(description="Number of votes against the verdict.")
    mean_probability: Score | None = Field(description="Mean forecast probability of success.")
    weight: Score | None = Field(description="Weight by skill; null while all weights are equal.")
    record: RecordOut = Field(description="Track record of the agent.")

    @classmethod
    def of(
        cls, counts: AgentCounts, record: ForecastRecord, weights: Mapping[str, float] | None
    ) -> Self:
        weight = None if weights is None else weights.get(counts.agent, 0.0)
        own = {name: getattr(counts, name) for name in AgentCounts.__slots__}
        return cls(**own, weight=weight, record=RecordOut.of(record))


class OutcomeCountsOut(Out):
    """Numbers of verdicts with known, unknown and open outcome."""

    open: int = Field(description="Number of verdicts whose horizon has not ended.")
    decided: int = Field(description="Number of verdicts with a known outcome.")
    unknown: int = Field(description="Outcomes without a price or a median.")


class SignalStatisticsOut(Out):
    """Counts of the signals received within the last `days`; records are of all time."""

    days: int = Field(description="Length of the period, in days.")
    total: int = Field(description="Number of signals received.")
    states: dict[str, int] = Field(
        examples=[{"approved": 3, "rejected": 5}], description="Number of signals by state."
    )
    evaluations: dict[str, int] = Field(
        examples=[{"APPROVE": 3, "REJECT": 5}], description="Number of verdicts by kind."
    )
    outcomes: OutcomeCountsOut = Field(description="Number of verdicts by their outcome.")
    is_skill_weighted: bool = Field(description="False while all agents have equal weights.")
    sources: list[SourceStatisticsOut] = Field(description="Counts by source.")
    agents: list[AgentStatisticsOut] = Field(description="Votes by agent.")

    @classmethod
    def of(cls, statistics: SignalStatistics, days: int) -> Self:
        counts = statistics.counts
        states = {one.source: dict(one.states) for one in counts.sources}
        agents = {one.agent: one for one in counts.agents}
        return cls(
            days=days,
            total=counts.total,
            states=counts.states,
            evaluations=dict(counts.evaluations),
            outcomes=OutcomeCountsOut.model_validate(statistics.outcomes),
            is_skill_weighted=statistics.weights is not None,
            sources=[
                SourceStatisticsOut(
                    source=name,
                    states=states.get(name, {}),
                    records=[
                        SourceRecordOut(
                            signal_type=type_, trust=trust(record), record=RecordOut.of(record)
                        )
                        for (source, type_), record in sorted(
                            statistics.sources.items(), key=lambda one: one[0]
                        )
                        if source == name
                    ],
                )
                for name in sorted(states.keys() | {source for source, _ in statistics.sources})
            ],
            agents=[
                AgentStatisticsOut.of(
                    agents.get(name, AgentCounts.empty(name)),
                    statistics.agents.get(name, _NO_RECORD),
                    statistics.weights,
                )
                for name in sorted(agents.keys() | statistics.agents.keys())
            ],
        )
