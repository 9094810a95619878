"""What is counted of signals and of the agents that judge them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """How many signals of one source are in which state."""

    source: str
    states: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AgentCounts:
    """What one agent has said; the mean is None where it never spoke."""

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
    """What waits at present."""

    waiting: int  # to be judged
    oldest: datetime | None  # when the first of those came in
    failed: int  # nobody could judge them
    open_outcomes: int  # verdicts of which it is not known yet what came
