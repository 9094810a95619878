"""What the stream allows, and what has happened on it."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

DAY_MS = 86_400_000


@dataclass(slots=True)
class Terms:
    """The limits of the stream, changed through the control endpoint.

    Lives are exchange time, so that speed shortens them; idling, pings and the limits of
    messages and connections are real time, which the client's timers run on. A connection may
    hold 400 topics: today's futures limit is not documented, and that is the spot one.
    """

    token_life_ms: int = DAY_MS
    connection_life_ms: int = DAY_MS
    ping_interval_ms: int = 18_000
    ping_timeout_ms: int = 10_000
    idle_s: float = 60.0
    topics_per_message: int = 100
    topics_per_connection: int = 400
    messages: int = 100
    messages_window_s: float = 10.0
    connections: int = 800
    new_connections: int = 30
    new_connections_window_s: float = 60.0
    queue: int = 10_000

    def change(self, asked: dict[str, Any]) -> None:
        """Set some of them; ValueError for a name that there is not, or a value of no use."""
        for name, value in asked.items():
            if name not in asdict(self):
                raise ValueError(f"unknown term {name!r}; known: {', '.join(asdict(self))}")
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(f"{name} must be a number of at least 0")
        for name, value in asked.items():
            setattr(self, name, value)


@dataclass(slots=True)
class StreamTally:
    """What happened since the last reset."""

    tokens: int = 0
    opened: int = 0
    refused: int = 0
    received: int = 0
    sent: int = 0
    cut_off: int = 0
    expired: int = 0
    idled: int = 0
    ticks: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    by_topic: Counter[str] = field(default_factory=Counter)
