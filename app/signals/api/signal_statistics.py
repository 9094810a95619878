"""Statistics of signals, their sources and the agents: counts, and forecasts against outcomes."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field

from app.foundation.http.schemas import Out, Score, UtcTime
from app.signals.domain.signal_statistics import AgentCounts
from app.signals.domain.track_record import BINS, Bin, Record, trust
from app.signals.services.service import SignalStatistics

_NOBODY = Record()


class SignalQueueOut(Out):
    """What waits of signals at present."""

    waiting: int = Field(description="To be judged.")
    oldest: UtcTime | None = Field(description="When the first of those came in.")
    failed: int = Field(description="Nobody could judge them; they may be tried again.")
    open_outcomes: int = Field(description="Verdicts of which it is not known yet what came.")


class BinOut(Out):
    """Forecasts of about the same probability, and what came of them."""

    from_probability: float = Field(examples=[0.7])
    outcomes: int
    mean_said: Score
    share_came: Score

    @classmethod
    def of(cls, one: Bin) -> Self:
        return cls(
            from_probability=one.number / BINS,
            outcomes=one.outcomes,
            mean_said=one.said / one.outcomes,
            share_came=one.came / one.outcomes,
        )


class RecordOut(Out):
    """Of all time; null where nothing has come out yet."""

    outcomes: int = Field(description="Those of one symbol whose times overlap count once.")
    brier_score: Score | None = Field(description="Who always says one half has 0.25.")
    skill: float | None = Field(
        description="1 - BS / 0.25, with 50 outcomes of chance before the first: 0 is chance."
    )
    calibration_error: Score | None = Field(
        description="Mean distance of what was said from what came, over bins of a tenth."
    )
    calibration: list[BinOut]

    @classmethod
    def of(cls, record: Record) -> Self:
        return cls(
            outcomes=record.outcomes,
            brier_score=record.brier,
            skill=record.skill if record.outcomes else None,
            calibration_error=record.calibration_error,
            calibration=[BinOut.of(one) for one in record.bins],
        )


class SourceRecordOut(Out):
    """The track record of a source for one type of its signals."""

    signal_type: str
    trust: Score = Field(
        description="The part of its claim that counts: 0.2 + 0.8 x n / (n + 50) x max(0, skill)."
    )
    record: RecordOut = Field(
        description="Its claim, 1/2 + 1/2 x strength x confidence, against whether its signals "
        "were right, as far as judged. `skill` has the factor n / (n + 50)."
    )


class SourceStatisticsOut(Out):
    source: str
    states: dict[str, int]
    records: list[SourceRecordOut] = Field(
        description="By type of signal; without an outcome the trust is 0.2."
    )


class AgentStatisticsOut(Out):
    """What one agent has said, and what came of it."""

    agent: str
    votes: int
    abstentions: int
    approvals: int
    rejections: int
    conditionals: int
    vetoes: int
    dissents: int
    mean_probability: Score | None
    weight: Score | None = Field(description="By skill; null while all agents weigh the same.")
    record: RecordOut

    @classmethod
    def of(cls, counts: AgentCounts, record: Record, weights: Mapping[str, float] | None) -> Self:
        weight = None if weights is None else weights.get(counts.agent, 0.0)
        own = {name: getattr(counts, name) for name in AgentCounts.__slots__}
        return cls(**own, weight=weight, record=RecordOut.of(record))


class OutcomeCountsOut(Out):
    """Verdicts by whether it is known what came of the symbol."""

    open: int
    decided: int
    unknown: int = Field(description="A price, or most of the universe, was missing.")


class SignalStatisticsOut(Out):
    """Counts of the signals that came in within the last `days`; records are of all time."""

    days: int
    total: int
    states: dict[str, int] = Field(examples=[{"approved": 3, "rejected": 5}])
    evaluations: dict[str, int] = Field(examples=[{"APPROVE": 3, "REJECT": 5}])
    outcomes: OutcomeCountsOut
    is_weighed_by_skill: bool = Field(description="Else every agent weighs the same.")
    sources: list[SourceStatisticsOut]
    agents: list[AgentStatisticsOut]

    @classmethod
    def of(cls, found: SignalStatistics, days: int) -> Self:
        counts = found.counts
        states = {one.source: dict(one.states) for one in counts.sources}
        agents = {one.agent: one for one in counts.agents}
        return cls(
            days=days,
            total=counts.total,
            states=counts.states,
            evaluations=dict(counts.evaluations),
            outcomes=OutcomeCountsOut.model_validate(found.outcomes),
            is_weighed_by_skill=found.weights is not None,
            sources=[
                SourceStatisticsOut(
                    source=name,
                    states=states.get(name, {}),
                    records=[
                        SourceRecordOut(
                            signal_type=type_, trust=trust(record), record=RecordOut.of(record)
                        )
                        for (source, type_), record in sorted(
                            found.sources.items(), key=lambda one: one[0]
                        )
                        if source == name
                    ],
                )
                for name in sorted(states.keys() | {source for source, _ in found.sources})
            ],
            agents=[
                AgentStatisticsOut.of(
                    agents.get(name, AgentCounts.silent(name)),
                    found.agents.get(name, _NOBODY),
                    found.weights,
                )
                for name in sorted(agents.keys() | found.agents.keys())
            ],
        )
