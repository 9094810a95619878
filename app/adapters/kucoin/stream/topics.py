"""Subscriptions of one connection: requested, acknowledged and retried topics."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Final

from app.adapters.kucoin.stream.protocol import Control, StreamLimits
from app.market.domain.stream import Topic

SUBSCRIBE: Final = "subscribe"
UNSUBSCRIBE: Final = "unsubscribe"
_NO_TOPIC: Final = frozenset({400, 404, 406})
_LIMIT: Final = 509


@dataclass(frozen=True, slots=True)
class SubscriptionCommand:
    """Command to the exchange with its number of earlier tries."""

    kind: str
    topics: tuple[Topic, ...]
    tries: int = 0


@dataclass(slots=True)
class Subscriptions:
    """Requested topics of one connection, and the acknowledged ones among them.

    Topics without success go to `displaced`, unknown ones to `refused`.
    """

    terms: StreamLimits
    wanted: dict[Topic, None] = field(default_factory=dict)
    acked: dict[Topic, float] = field(default_factory=dict)  # monotonic time of the acknowledgement
    changes: int = 0  # of acknowledged topics
    displaced: list[Topic] = field(default_factory=list)
    refused: list[Topic] = field(default_factory=list)
    is_full: bool = False
    _queue: deque[SubscriptionCommand] = field(default_factory=deque)
    _pending: dict[str, tuple[SubscriptionCommand, float]] = field(default_factory=dict)
    _nagged: dict[Topic, float] = field(default_factory=dict)
    _next_send: float = 0.0

    def begin(self, now: float) -> None:
        """Start a new connection: all topics must be subscribed."""
        self.clear()
        self._next_send = now
        self.say(SUBSCRIBE, self.wanted)

    def clear(self) -> None:
        """Forget commands and acknowledgements; requested topics stay."""
        self.changes += 1
        for forgotten in (self.acked, self._pending, self._queue, self._nagged):
            forgotten.clear()

    @property
    def is_settled(self) -> bool:
        """Whether no topic waits for a command or an acknowledgement."""
        pending = (command.kind for command, _ in self._pending.values())
        return not self._queue and SUBSCRIBE not in pending

    def add(self, topics: Iterable[Topic]) -> list[Topic]:
        """Request topics; returns the new ones."""
        new = [topic for topic in topics if topic not in self.wanted]
        self.wanted.update(dict.fromkeys(new))
        return new

    def drop(self, topics: Iterable[Topic]) -> list[Topic]:
        """Release topics; returns those requested before."""
        gone = [topic for topic in topics if topic in self.wanted]
        self.changes += len(gone)
        for topic in gone:
            del self.wanted[topic]
            self.acked.pop(topic, None)
            self._nagged.pop(topic, None)
        return gone

    def say(self, kind: str, topics: Iterable[Topic]) -> None:
        """Queue commands, with a limited number of topics of one kind each."""
        for _, group in groupby(sorted(topics), key=lambda topic: topic.kind):
            while part := tuple(islice(group, self.terms.topics_per_message)):
                self._queue.append(SubscriptionCommand(kind, part))

    def heard(self, topic: Topic) -> bool:
        """Register a message of a topic; False for one that was not requested."""
        if self._nagged:
            self._nagged.pop(topic, None)
        return topic in self.wanted

    def acknowledged(self, number: str, now: float) -> None:
        done = self._pending.pop(number, None)
        self.changes += 1
        if done is not None and done[0].kind == SUBSCRIBE:
            self.acked.update((topic, now) for topic in done[0].topics if topic in self.wanted)

    def failed(self, frame: Control, now: float) -> bool:
        """Handle an error; True when topics must move after their last try."""
        known = None if frame.number is None else self._pending.pop(frame.number, None)
        if known is None:
            self._next_send = max(self._next_send, now + self.terms.busy_s)
            return True
        command = known[0]
        if command.kind != SUBSCRIBE:
            return True
        if frame.code in _NO_TOPIC or (frame.code == _LIMIT and "per time" in frame.text):
            self._split(command)
            return True
        if frame.code == _LIMIT and "per session" in frame.text:
            self.is_full = True
            self.displace(command.topics)
            return True
        return self._again(command, now, self.terms.busy_s * (command.tries + 1))

    def overdue(self, now: float) -> bool:
        """Retry unacknowledged commands; False when one had its last try."""
        late = [n for n, (_, sent) in self._pending.items() if now - sent >= self.terms.ack_s]
        commands = [self._pending.pop(number)[0] for number in late]
        kept = [self._again(one, now, 0.0) for one in commands if one.kind == SUBSCRIBE]
        return all(kept)

    def may_send(self, now: float) -> bool:
        """Whether the exchange accepts a message now."""
        return now >= self._next_send

    def sent(self, now: float) -> None:
        """Count a sent message; the exchange counts all of them."""
        self._next_send = max(self._next_send, now + self.terms.send_every_s)

    def pump(self, now: float, number: Callable[[], str]) -> list[tuple[str, SubscriptionCommand]]:
        """Next commands to send, with their numbers."""
        sent: list[tuple[str, SubscriptionCommand]] = []
        while self._queue and self.may_send(now):
            command = self._queue.popleft()
            if command.kind == SUBSCRIBE:
                kept = tuple(topic for topic in command.topics if topic in self.wanted)
                command = SubscriptionCommand(SUBSCRIBE, kept, command.tries)
            if command.topics:
                sent.append((number(), command))
                self._pending[sent[-1][0]] = (command, now)
                self.sent(now)
        return sent

    def nag(self, topics: Iterable[Topic], now: float) -> list[Topic]:
        """Resubscribe silent topics; returns those still silent after that."""
        here = [topic for topic in topics if topic in self.wanted]
        first = [topic for topic in here if topic not in self._nagged]
        self.changes += len(first)
        for topic in first:
            self._nagged[topic] = now
            self.acked.pop(topic, None)
        self.say(UNSUBSCRIBE, first)
        self.say(SUBSCRIBE, first)
        return [topic for topic in here if now - self._nagged[topic] >= self.terms.deaf_s]

    def displace(self, topics: Iterable[Topic]) -> None:
        """Release topics for another connection."""
        gone = self.drop(topics)
        self.displaced.extend(gone)
        self.say(UNSUBSCRIBE, gone)

    def _split(self, command: SubscriptionCommand) -> None:
        """Split a refused list in half: one bad name spoils it."""
        if len(command.topics) == 1:
            self.refused.extend(command.topics)
            self.drop(command.topics)
            return
        middle = len(command.topics) // 2
        for part in (command.topics[:middle], command.topics[middle:]):
            self._queue.append(SubscriptionCommand(SUBSCRIBE, part))

    def _again(self, command: SubscriptionCommand, now: float, pause_s: float) -> bool:
        if command.tries + 1 >= self.terms.ack_tries:
            self.displace(command.topics)
            return False
        self._next_send = max(self._next_send, now + pause_s)
        self._queue.append(SubscriptionCommand(command.kind, command.topics, command.tries + 1))
        return True
