"""Forecast records of agents and sources: calibration, Brier skill and resulting weights."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.foundation.decimal_math import ONE, to_millionths
from app.signals.domain.models import Direction
from app.signals.domain.opinion_pool import brier_skill, shrunk_brier_score, weights_from_skill

BINS: Final = 10  # probability bins of equal width
UNPROVEN: Final = 0.2  # trust in a source without skill
SourceKey = tuple[str, str]  # a source and one of its signal types


class ForecastKind(StrEnum):
    """Kind of forecaster, which defines the forecast event."""

    AGENT = "agent"  # event: the symbol outperforms the median
    SOURCE = "source"  # event: the signal is right


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Forecasts of similar probability and their outcomes."""

    number: int  # 0..9, from the lowest
    outcomes: int = 0
    forecast_sum: float = 0.0  # sum of the probabilities
    occurrences: int = 0  # number of outcomes in which the event occurred
    squared_error_sum: float = 0.0  # of forecasts from outcomes

    def add_forecast(self, probability: float, occurred: bool) -> "CalibrationBin":
        """Returns the record with one more forecast and its outcome."""
        return replace(
            self,
            outcomes=self.outcomes + 1,
            forecast_sum=self.forecast_sum + probability,
            occurrences=self.occurrences + occurred,
            squared_error_sum=self.squared_error_sum + (probability - occurred) ** 2,
        )


@dataclass(frozen=True, slots=True)
class ForecastRecord:
    """Forecasts with known outcome of one agent or source, in bins of probability."""

    bins: tuple[CalibrationBin, ...] = ()  # non-empty bins, ascending

    @property
    def outcomes(self) -> int:
        return sum(one.outcomes for one in self.bins)

    @property
    def occurrences(self) -> int:
        return sum(one.occurrences for one in self.bins)

    @property
    def brier(self) -> float | None:
        """Brier score; None without any outcome."""
        return (
            sum(one.squared_error_sum for one in self.bins) / self.outcomes
            if self.outcomes
            else None
        )

    @property
    def skill(self) -> float:
        """1 - BS / 0.25 with 50 outcomes of chance as prior: 0 without any outcome."""
        return brier_skill(
            shrunk_brier_score(sum(one.squared_error_sum for one in self.bins), self.outcomes)
        )

    @property
    def calibration_error(self) -> float | None:
        """Mean distance of forecast and observed frequency of a bin, weighted by forecasts."""
        if not self.outcomes:
            return None
        return sum(abs(one.forecast_sum - one.occurrences) for one in self.bins) / self.outcomes

    def add_forecast(self, probability: float, occurred: bool) -> "ForecastRecord":
        """Returns the record with one more forecast and its outcome."""
        number = bin_index(probability)
        known = {one.number: one for one in self.bins}
        known[number] = known.get(number, CalibrationBin(number)).add_forecast(
            probability, occurred
        )
        return ForecastRecord(tuple(known[one] for one in sorted(known)))


def claimed_probability(strength: float, confidence: float) -> float:
    """Returns the probability of being right that a source claims: from 1/2 to 1."""
    return 0.5 + 0.5 * strength * confidence


def trust(record: ForecastRecord) -> float:
    """Returns factor k of a source's claim: 0.2 + 0.8 n / (n + 50) max(0, skill).

    `ForecastRecord.skill` includes the factor n / (n + 50).
    """
    return UNPROVEN + (1.0 - UNPROVEN) * max(0.0, record.skill)


def is_proven(record: ForecastRecord, min_outcomes: int) -> bool:
    """True if a source has positive skill over at least `min_outcomes` outcomes."""
    return record.outcomes >= min_outcomes and to_millionths(record.skill) > 0


def bin_index(probability: float) -> int:
    """Returns the bin 0..9 of a probability; one half is the lower bound of the sixth bin."""
    return min(to_millionths(probability) * BINS // ONE, BINS - 1)


def agent_weights(
    records: Mapping[str, ForecastRecord], agents: Iterable[str], min_outcomes: int
) -> dict[str, float] | None:
    """Computes weights by skill; None, for equal weights, without any skilled agent.

    An agent with fewer than `min_outcomes` outcomes has no known skill, hence no weight beside an
    agent with known skill.
    """
    known = {
        name: records[name].skill
        for name in agents
        if name in records and records[name].outcomes >= min_outcomes
    }
    return weights_from_skill(known)


def outcome_matches(direction: Direction, outperformed: bool) -> bool | None:
    """True if a signal was right; None for a neutral one."""
    if direction is Direction.NEUTRAL:
        return None
    return outperformed is (direction is Direction.BUY)


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """Number of signals of one source by state."""

    source: str
    states: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AgentCounts:
    """Counts of one agent's votes; the mean is None without votes."""

    agent: str
    votes: int
    abstentions: int
    approvals: int
    rejections: int
    conditionals: int
    vetoes: int
    dissents: int
    mean_probability: float | None

    @classmethod
    def empty(cls, agent: str) -> "AgentCounts":
        """Counts of an agent without votes."""
        return cls(agent, 0, 0, 0, 0, 0, 0, 0, None)


@dataclass(frozen=True, slots=True)
class SignalCounts:
    sources: tuple[SourceCounts, ...]
    evaluations: Mapping[str, int]
    agents: tuple[AgentCounts, ...]

    @property
    def states(self) -> dict[str, int]:
        """Number of signals of all sources by state."""
        total: Counter[str] = Counter()
        for one in self.sources:
            total.update(one.states)
        return dict(sorted(total.items()))

    @property
    def total(self) -> int:
        return sum(self.states.values())


@dataclass(frozen=True, slots=True)
class SignalQueue:
    """Number and age of waiting signals."""

    waiting: int  # signals that wait for their evaluation
    oldest_received_at: datetime | None  # arrival of the oldest waiting signal
    failed: int  # signals that could not be evaluated
    open_outcomes: int  # verdicts whose outcome is not known yet
