"""What the stream of the exchange does, as metrics."""

import math
from collections import Counter

from app.foundation.metrics import Metrics
from app.market.domain.stream import StreamFacts

_PHASES = (
    "waiting", "ticket", "opening", "greeting", "subscribing", "catching_up", "live",
)  # fmt: skip


def count_feed(
    metrics: Metrics, before: StreamFacts, now: StreamFacts, *, is_streaming: bool
) -> None:
    """Set the gauges to `now`, and count what has come since `before`."""
    set_feed(metrics, now, is_streaming=is_streaming)
    metrics.feed_messages.inc(now.messages - before.messages)
    metrics.feed_rotations.inc(now.rotations - before.rotations)
    for reason, count in now.dropped.items():
        metrics.feed_dropped_messages.labels(reason).inc(count - before.dropped.get(reason, 0))
    for reason, count in now.failures.items():
        metrics.feed_reconnects.labels(reason).inc(count - before.failures.get(reason, 0))


def set_feed(metrics: Metrics, now: StreamFacts, *, is_streaming: bool) -> None:
    """Set the gauges to `now`."""
    metrics.feed_streaming.set(is_streaming)
    phases = Counter(line.phase for line in now.lines)
    for phase in _PHASES:
        metrics.feed_connections.labels(phase).set(phases[phase])
    metrics.feed_topics.labels("wanted").set(now.topics)
    metrics.feed_topics.labels("live").set(now.live_topics)
    known = math.nan if now.last_message_s is None else now.last_message_s
    metrics.feed_last_message_age_seconds.set(known)
