"""A subscribed topic: its subscribers and the state that it published last."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from app.sandbox.stream.topics import MarketTopic


class FeedListener(Protocol):
    """A connection as a feed sees it: a receiver of messages with a number."""

    number: int
    connect_id: str

    def push(self, topic: str, frame: bytes) -> None:
        """Queue one message of a topic."""
        ...


@dataclass(slots=True)
class Feed:
    """A topic with its listeners; `started_ms` is the exchange time of the first subscription."""

    topic: MarketTopic
    started_ms: int
    listeners: dict[int, FeedListener] = field(default_factory=dict)
    last_state: Any = None
    periods: dict[str, int] = field(default_factory=dict)

    @property
    def row(self) -> int:
        """Row of the contract; ValueError for the announcements of all contracts."""
        if self.topic.row is None:
            raise ValueError(f"topic {self.topic.name} has no single contract")
        return self.topic.row

    def is_due(self, name: str, now_ms: int, period_ms: int) -> bool:
        """True once per period, and at the first call."""
        period = now_ms // period_ms
        if self.periods.get(name) == period:
            return False
        self.periods[name] = period
        return True

    def update_state(self, state: Any) -> bool:
        """Store a state and return whether it differs from the one before."""
        if state == self.last_state:
            return False
        self.last_state = state
        return True
