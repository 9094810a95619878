"""What one connection has asked for, what it was given of it, and what is asked again."""

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
    """One message to the exchange, and how often it was sent before."""

    kind: str
    topics: tuple[Topic, ...]
    tries: int = 0


@dataclass(slots=True)
class Subscriptions:
    """Topics that are wanted of one connection, and those of them that it has acknowledged.

    Topics that it does not get go to `displaced`, those that do not exist to `refused`.
    """

    terms: StreamLimits
    wanted: dict[Topic, None] = field(default_factory=dict)
    acked: dict[Topic, float] = field(default_factory=dict)  # since when
    changes: int = 0  # of what is acknowledged
    displaced: list[Topic] = field(default_factory=list)
    refused: list[Topic] = field(default_factory=list)
    is_full: bool = False
    _queue: deque[SubscriptionCommand] = field(default_factory=deque)
    _pending: dict[str, tuple[SubscriptionCommand, float]] = field(default_factory=dict)
    _nagged: dict[Topic, float] = field(default_factory=dict)
    _next_send: float = 0.0

    def begin(self, now: float) -> None:
        """A new connection: everything has to be asked for."""
        self.clear()
        self._next_send = now
        self.say(SUBSCRIBE, self.wanted)

    def clear(self) -> None:
        """Nothing was asked for, nothing acknowledged; what is wanted stays so."""
        self.changes += 1
        for forgotten in (self.acked, self._pending, self._queue, self._nagged):
            forgotten.clear()

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits to be asked for or acknowledged."""
        pending = (command.kind for command, _ in self._pending.values())
        return not self._queue and SUBSCRIBE not in pending

    def add(self, topics: Iterable[Topic]) -> list[Topic]:
        """Those that are new."""
        new = [topic for topic in topics if topic not in self.wanted]
        self.wanted.update(dict.fromkeys(new))
        return new

    def drop(self, topics: Iterable[Topic]) -> list[Topic]:
        """Those that were wanted."""
        gone = [topic for topic in topics if topic in self.wanted]
        self.changes += len(gone)
        for topic in gone:
            del self.wanted[topic]
            self.acked.pop(topic, None)
            self._nagged.pop(topic, None)
        return gone

    def say(self, kind: str, topics: Iterable[Topic]) -> None:
        """Have it sent when its turn comes, so many topics of a kind to a message."""
        for _, group in groupby(sorted(topics), key=lambda topic: topic.kind):
            while part := tuple(islice(group, self.terms.topics_per_message)):
                self._queue.append(SubscriptionCommand(kind, part))

    def heard(self, topic: Topic) -> bool:
        """Whether it was asked for."""
        if self._nagged:
            self._nagged.pop(topic, None)
        return topic in self.wanted

    def acknowledged(self, number: str, now: float) -> None:
        done = self._pending.pop(number, None)
        self.changes += 1
        if done is not None and done[0].kind == SUBSCRIBE:
            self.acked.update((topic, now) for topic in done[0].topics if topic in self.wanted)

    def failed(self, frame: Control, now: float) -> bool:
        """An error came; whether topics may have to go elsewhere, because they had their tries."""
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
        """Asks again for what was not acknowledged; False when something had its tries."""
        late = [n for n, (_, sent) in self._pending.items() if now - sent >= self.terms.ack_s]
        commands = [self._pending.pop(number)[0] for number in late]
        kept = [self._again(one, now, 0.0) for one in commands if one.kind == SUBSCRIBE]
        return all(kept)

    def may_send(self, now: float) -> bool:
        """Whether the exchange takes a message now."""
        return now >= self._next_send

    def sent(self, now: float) -> None:
        """A message has gone out; the exchange counts all of them."""
        self._next_send = max(self._next_send, now + self.terms.send_every_s)

    def pump(self, now: float, number: Callable[[], str]) -> list[tuple[str, SubscriptionCommand]]:
        """What is to be sent now, with its number."""
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
        """Subscribes anew to topics that are not heard; those for which that did not help."""
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
        """They are for another connection."""
        gone = self.drop(topics)
        self.displaced.extend(gone)
        self.say(UNSUBSCRIBE, gone)

    def _split(self, command: SubscriptionCommand) -> None:
        """One bad name spoils the list: find it."""
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
