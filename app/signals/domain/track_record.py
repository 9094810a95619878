"""How good the probabilities of an agent or a source have been, and the weight that they earn."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.foundation.decimal_math import ONE, to_millionths
from app.signals.domain.models import Direction
from app.signals.domain.opinion_pool import brier_skill, shrunk_brier_score, weights_from_skill

BINS: Final = 10  # of probabilities, equally wide
UNPROVEN: Final = 0.2  # trust in a source without skill
SourceKey = tuple[str, str]  # a source and one of its signal types


class ForecastKind(StrEnum):
    """Whose probabilities they are."""

    AGENT = "agent"  # that the symbol beats the median
    SOURCE = "source"  # that the signal is right: what it claims


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Forecasts of about the same probability."""

    number: int  # 0..9, from the lowest
    outcomes: int = 0
    said: float = 0.0  # sum of the probabilities
    came: int = 0  # how often it came so
    squares: float = 0.0  # sum of the squared distances

    def add_forecast(self, probability: float, came: bool) -> "CalibrationBin":
        """Add one forecast and its outcome."""
        return replace(
            self,
            outcomes=self.outcomes + 1,
            said=self.said + probability,
            came=self.came + came,
            squares=self.squares + (probability - came) ** 2,
        )


@dataclass(frozen=True, slots=True)
class ForecastRecord:
    """All forecasts of one agent or source whose outcome is known, by how sure they were."""

    bins: tuple[CalibrationBin, ...] = ()  # that are not empty, ascending

    @property
    def outcomes(self) -> int:
        return sum(one.outcomes for one in self.bins)

    @property
    def came(self) -> int:
        return sum(one.came for one in self.bins)

    @property
    def brier(self) -> float | None:
        """Brier score; None without any outcome."""
        return sum(one.squares for one in self.bins) / self.outcomes if self.outcomes else None

    @property
    def skill(self) -> float:
        """1 - BS / 0.25 with 50 outcomes of chance as prior: 0 without any outcome."""
        return brier_skill(shrunk_brier_score(sum(one.squares for one in self.bins), self.outcomes))

    @property
    def calibration_error(self) -> float | None:
        """Mean distance, over all forecasts, of a bin's mean forecast from its frequency."""
        if not self.outcomes:
            return None
        return sum(abs(one.said - one.came) for one in self.bins) / self.outcomes

    def add_forecast(self, probability: float, came: bool) -> "ForecastRecord":
        """Add one forecast and its outcome."""
        number = bin_index(probability)
        known = {one.number: one for one in self.bins}
        known[number] = known.get(number, CalibrationBin(number)).add_forecast(probability, came)
        return ForecastRecord(tuple(known[one] for one in sorted(known)))


def claimed_probability(strength: float, confidence: float) -> float:
    """Probability of being right that a source claims: from 1/2 to 1."""
    return 0.5 + 0.5 * strength * confidence


def trust(record: ForecastRecord) -> float:
    """Factor k of a source's claim: 0.2 + 0.8 n / (n + 50) max(0, skill).

    `ForecastRecord.skill` has the factor n / (n + 50) already.
    """
    return UNPROVEN + (1.0 - UNPROVEN) * max(0.0, record.skill)


def is_proven(record: ForecastRecord, least: int) -> bool:
    """Whether a source has skill; unknown, hence false, below `least` outcomes."""
    return record.outcomes >= least and to_millionths(record.skill) > 0


def bin_index(probability: float) -> int:
    """Bin 0..9 of a probability; one half begins the sixth."""
    return min(to_millionths(probability) * BINS // ONE, BINS - 1)


def agent_weights(
    records: Mapping[str, ForecastRecord], agents: Iterable[str], least: int
) -> dict[str, float] | None:
    """Weights that follow skill; None, for equal weights, without any skilled agent.

    An agent with fewer than `least` outcomes has no known skill: it weighs nothing beside one
    with known skill.
    """
    known = {
        name: records[name].skill
        for name in agents
        if name in records and records[name].outcomes >= least
    }
    return weights_from_skill(known)


def outcome_matches(direction: Direction, beat: bool) -> bool | None:
    """Whether a signal was right; None for a neutral one."""
    if direction is Direction.NEUTRAL:
        return None
    return beat is (direction is Direction.BUY)


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """How many signals of one source are in which state."""

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
    def silent(cls, agent: str) -> "AgentCounts":
        """Of one that was not asked."""
        return cls(agent, 0, 0, 0, 0, 0, 0, 0, None)


@dataclass(frozen=True, slots=True)
class SignalCounts:
    sources: tuple[SourceCounts, ...]
    evaluations: Mapping[str, int]
    agents: tuple[AgentCounts, ...]

    @property
    def states(self) -> dict[str, int]:
        """Over all sources."""
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

    waiting: int  # to be judged
    oldest_received_at: datetime | None  # when the first of those came in
    failed: int  # could not be evaluated
    open_outcomes: int  # verdicts of which it is not known yet what came
