"""One topic that somebody listens to: when it speaks, and what it said last."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.sandbox.stream.topics import Topic

if TYPE_CHECKING:
    from app.sandbox.stream.connection import Connection


@dataclass(slots=True)
class Feed:
    """A subscribed topic; `seen` is what it compares with, `at_ms` since when it is followed."""

    topic: Topic
    at_ms: int
    listeners: "dict[int, Connection]" = field(default_factory=dict)
    seen: Any = None
    periods: dict[str, int] = field(default_factory=dict)

    @property
    def row(self) -> int:
        """The contract's row; only the announcements of all contracts have none."""
        if self.topic.row is None:
            raise ValueError(f"{self.topic.name} is of no one contract")
        return self.topic.row

    def due(self, name: str, now_ms: int, period_ms: int) -> bool:
        """Whether a new period has begun since the last time; the first look is due."""
        period = now_ms // period_ms
        if self.periods.get(name) == period:
            return False
        self.periods[name] = period
        return True

    def changed(self, state: Any) -> bool:
        """Whether this is another state than was last seen."""
        if state == self.seen:
            return False
        self.seen = state
        return True
