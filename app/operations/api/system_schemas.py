"""The state of the exchange stream, as it is shown."""

from enum import StrEnum
from typing import Self

from pydantic import Field

from app.foundation.http.schemas import Out
from app.market.services.health_facts import StreamReport


class FeedMode(StrEnum):
    STREAM = "stream"
    POLL = "poll"


class ConnectionOut(Out):
    """One connection to the exchange."""

    phase: str = Field(examples=["live"])
    since_s: float = Field(description="Seconds in this phase.")
    topics: int
    active_topics: int = Field(description="Acknowledged, and nothing of them was missed.")
    silent_s: float | None = Field(description="Since its last frame; null while it is not open.")


class StreamOut(Out):
    """How the market comes in; connections and counts are those of the process that answers."""

    mode: FeedMode = Field(description="`poll` also while the stream is away.")
    connections: list[ConnectionOut]
    topics: int = Field(description="Asked for.")
    active_topics: int
    last_message_s: float | None = Field(description="Since the last message; null before one.")
    messages: int
    dropped: dict[str, int] = Field(description="Messages that were not taken, by reason.")
    failures: dict[str, int] = Field(description="Connections that were lost, by reason.")
    rotations: int = Field(description="Connections replaced before their day was over.")

    @classmethod
    def of(cls, report: StreamReport | None) -> Self | None:
        """None where the market is only ever asked for."""
        if report is None:
            return None
        facts = report.facts
        return cls(
            mode=FeedMode.STREAM if report.is_streaming else FeedMode.POLL,
            connections=[ConnectionOut.model_validate(line) for line in facts.lines],
            topics=facts.topics,
            active_topics=facts.active_topics,
            last_message_s=facts.last_message_s,
            messages=facts.messages,
            dropped=dict(facts.dropped),
            failures=dict(facts.failures),
            rotations=facts.rotations,
        )
