"""Registry of the stream: subscribed topics, their subscribers, limits and faults."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from app.sandbox.exchange import LocalExchange
from app.sandbox.http.faults import InjectedFault
from app.sandbox.market.contracts import ACTIVE
from app.sandbox.stream.faults import applies_to
from app.sandbox.stream.session_limits import SessionLimits, StreamCounters
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


LEVEL2 = "/contractMarket/level2"


class SubscriptionRegistry:
    """Subscribed topics with their listeners; `broadcast_ms` is the market published last."""

    def __init__(self, exchange: LocalExchange, monotonic: Callable[[], float]) -> None:
        self.exchange = exchange
        self.monotonic = monotonic
        self.limits = SessionLimits()
        self.counters = StreamCounters()
        self.feeds: dict[str, Feed] = {}
        self.broadcast_ms: int | None = None

    def reset(self) -> None:
        """Restore the initial limits and counters; subscriptions stay."""
        self.limits.update(asdict(SessionLimits()))
        self.counters = StreamCounters()

    def find_active(self, symbol: str) -> int | None:
        """Row of a contract that can be subscribed; None for one that is not listed."""
        row = self.exchange.contracts.rows.get(symbol)
        if row is None:
            return None
        status = self.exchange.contracts.status(row, self.exchange.clock.now_ms())
        return row if status in ACTIVE else None

    def find_known(self, symbol: str) -> int | None:
        """Row of a contract, listed or not: delisted ones can still be unsubscribed."""
        return self.exchange.contracts.rows.get(symbol)

    def subscribe(self, listener: FeedListener, topic: MarketTopic) -> None:
        """Add a listener to a topic; the next tick publishes at once."""
        feed = self.feeds.get(topic.name)
        if feed is None:
            now_ms = self.exchange.clock.now_ms()
            feed = self.feeds[topic.name] = Feed(topic, now_ms)
            if topic.channel == LEVEL2:
                self.exchange.books.follow(feed.row, now_ms)
        feed.listeners[listener.number] = listener
        self.broadcast_ms = None

    def unsubscribe(self, listener: FeedListener, topic: MarketTopic) -> None:
        """Remove a listener from a topic; a topic without listeners is dropped."""
        feed = self.feeds.get(topic.name)
        if feed is None:
            return
        feed.listeners.pop(listener.number, None)
        if not feed.listeners:
            del self.feeds[topic.name]
            if topic.channel == LEVEL2:
                self.exchange.books.unfollow(feed.row, self.exchange.clock.now_ms())

    def find_half_open_fault(self, connect_id: str) -> InjectedFault | None:
        """Fault that leaves a connection's socket open but dead."""
        board = self.exchange.faults
        if board.streaming:
            for fault in board.listed():
                if fault.kind == "stream_half_open" and applies_to(fault, connect_id):
                    return fault
        return None
