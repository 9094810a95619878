"""State machine of one stream connection: its topics, events and time in, actions out."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby, islice
from typing import Final, Self

from app.adapters.kucoin.limiter import RandomSource
from app.adapters.kucoin.stream.protocol import (
    Action,
    AskTicket,
    Backfill,
    Close,
    Control,
    Open,
    Send,
    StreamLimits,
    StreamTicket,
)
from app.foundation.backoff import full_jitter_s
from app.market.domain.stream import StreamTopic

SUBSCRIBE: Final = "subscribe"
UNSUBSCRIBE: Final = "unsubscribe"
_UNKNOWN_TOPIC_CODES: Final = frozenset({400, 404, 406})
_LIMIT: Final = 509


@dataclass(frozen=True, slots=True)
class SubscriptionCommand:
    """Command to the exchange with its number of earlier tries."""

    kind: str
    topics: tuple[StreamTopic, ...]
    tries: int = 0


@dataclass(slots=True)
class Subscriptions:
    """Requested topics of one connection, and the acknowledged ones among them.

    Topics without success go to `displaced`, unknown ones to `refused`.
    """

    terms: StreamLimits
    wanted: dict[StreamTopic, None] = field(default_factory=dict)
    acked: dict[StreamTopic, float] = field(
        default_factory=dict
    )  # monotonic time of the acknowledgement
    changes: int = 0  # of acknowledged topics
    displaced: list[StreamTopic] = field(default_factory=list)
    refused: list[StreamTopic] = field(default_factory=list)
    is_full: bool = False
    _queue: deque[SubscriptionCommand] = field(default_factory=deque)
    _pending: dict[str, tuple[SubscriptionCommand, float]] = field(default_factory=dict)
    _resubscribed: dict[StreamTopic, float] = field(default_factory=dict)
    _next_send: float = 0.0

    def begin(self, now: float) -> None:
        """Start a new connection: all topics must be subscribed."""
        self.clear()
        self._next_send = now
        self.enqueue(SUBSCRIBE, self.wanted)

    def clear(self) -> None:
        """Forget commands and acknowledgements; requested topics stay."""
        self.changes += 1
        for forgotten in (self.acked, self._pending, self._queue, self._resubscribed):
            forgotten.clear()

    @property
    def is_settled(self) -> bool:
        """True if no topic waits for a command or an acknowledgement."""
        pending = (command.kind for command, _ in self._pending.values())
        return not self._queue and SUBSCRIBE not in pending

    def add(self, topics: Iterable[StreamTopic]) -> list[StreamTopic]:
        """Request topics; returns the new ones."""
        new = [topic for topic in topics if topic not in self.wanted]
        self.wanted.update(dict.fromkeys(new))
        return new

    def drop(self, topics: Iterable[StreamTopic]) -> list[StreamTopic]:
        """Release topics; returns those requested before."""
        gone = [topic for topic in topics if topic in self.wanted]
        self.changes += len(gone)
        for topic in gone:
            del self.wanted[topic]
            self.acked.pop(topic, None)
            self._resubscribed.pop(topic, None)
        return gone

    def enqueue(self, kind: str, topics: Iterable[StreamTopic]) -> None:
        """Queue commands, with a limited number of topics of one kind each."""
        for _, group in groupby(sorted(topics), key=lambda topic: topic.kind):
            while part := tuple(islice(group, self.terms.topics_per_message)):
                self._queue.append(SubscriptionCommand(kind, part))

    def on_message(self, topic: StreamTopic) -> bool:
        """Register a message of a topic; False for one that was not requested."""
        if self._resubscribed:
            self._resubscribed.pop(topic, None)
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
        if frame.code in _UNKNOWN_TOPIC_CODES or (
            frame.code == _LIMIT and "per time" in frame.text
        ):
            self._split(command)
            return True
        if frame.code == _LIMIT and "per session" in frame.text:
            self.is_full = True
            self.displace(command.topics)
            return True
        return self._again(command, now, self.terms.busy_s * (command.tries + 1))

    def retry_overdue(self, now: float) -> bool:
        """Retry unacknowledged commands; False when one had its last try."""
        late = [n for n, (_, sent) in self._pending.items() if now - sent >= self.terms.ack_s]
        commands = [self._pending.pop(number)[0] for number in late]
        remaining = [self._again(one, now, 0.0) for one in commands if one.kind == SUBSCRIBE]
        return all(remaining)

    def may_send(self, now: float) -> bool:
        """True if the exchange accepts a message now."""
        return now >= self._next_send

    def sent(self, now: float) -> None:
        """Count a sent message; the exchange counts all of them."""
        self._next_send = max(self._next_send, now + self.terms.send_every_s)

    def take_commands(
        self, now: float, number: Callable[[], str]
    ) -> list[tuple[str, SubscriptionCommand]]:
        """Next commands to send, with their numbers."""
        sent: list[tuple[str, SubscriptionCommand]] = []
        while self._queue and self.may_send(now):
            command = self._queue.popleft()
            if command.kind == SUBSCRIBE:
                remaining = tuple(topic for topic in command.topics if topic in self.wanted)
                command = SubscriptionCommand(SUBSCRIBE, remaining, command.tries)
            if command.topics:
                sent.append((number(), command))
                self._pending[sent[-1][0]] = (command, now)
                self.sent(now)
        return sent

    def resubscribe(self, topics: Iterable[StreamTopic], now: float) -> list[StreamTopic]:
        """Resubscribe silent topics; returns those still silent after that."""
        here = [topic for topic in topics if topic in self.wanted]
        first = [topic for topic in here if topic not in self._resubscribed]
        self.changes += len(first)
        for topic in first:
            self._resubscribed[topic] = now
            self.acked.pop(topic, None)
        self.enqueue(UNSUBSCRIBE, first)
        self.enqueue(SUBSCRIBE, first)
        return [topic for topic in here if now - self._resubscribed[topic] >= self.terms.stalled_s]

    def displace(self, topics: Iterable[StreamTopic]) -> None:
        """Release topics for another connection."""
        gone = self.drop(topics)
        self.displaced.extend(gone)
        self.enqueue(UNSUBSCRIBE, gone)

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


PING: Final = "ping"
_REFUSED_CODES: Final = frozenset({401, 403})
_NEVER: Final = float("inf")


class Phase(StrEnum):
    WAITING = "waiting"  # waits for its turn to connect
    TICKET = "ticket"
    OPENING = "opening"
    GREETING = "greeting"
    SUBSCRIBING = "subscribing"
    CATCHING_UP = "catching_up"
    LIVE = "live"


_OPEN: Final = frozenset({Phase.SUBSCRIBING, Phase.CATCHING_UP, Phase.LIVE})


@dataclass(slots=True)
class StreamConnection:
    """Life cycle: ticket, connect, welcome, subscribe, backfill, live, and again after a failure.

    `serial` is the number of the current attempt. Actions for the I/O go to `out`.
    """

    terms: StreamLimits
    dice: RandomSource
    out: list[Action]
    due: float  # earliest time of the next attempt
    serial: int
    topics: Subscriptions
    is_own: bool = False  # only for topics that failed elsewhere
    is_covered: bool = False  # another connection still brings the same topics
    phase: Phase = Phase.WAITING
    since: float = 0.0  # of the phase
    rotate_at: float = _NEVER
    retire_at: float = _NEVER
    successor: Self | None = None
    last_frame: float = 0.0
    failed: str | None = None  # failure, until the pool has read it
    lacks_ticket: bool = False  # the last attempt failed before it had one
    _failures: int = 0
    _name: str = ""
    _ticket: StreamTicket | None = None
    _numbers: int = 0
    _next_ping: float = 0.0
    _ping: float | None = None  # deadline of the answer
    _garbage: deque[float] = field(default_factory=deque)

    @property
    def is_live(self) -> bool:
        return self.phase is Phase.LIVE

    @property
    def is_open(self) -> bool:
        return self.phase in _OPEN

    # --- towards a connection

    def begin(self, now: float, serial: int) -> None:
        """Start a new attempt with a new ticket: the old one may have expired or been refused."""
        self.serial = serial
        self._enter(Phase.TICKET, now)
        self.out.append(AskTicket(serial))

    def ticket(self, ticket: StreamTicket, now: float) -> None:
        if self.phase is Phase.TICKET:
            self._ticket = ticket
            self._name = f"{int(self.dice.random() * 2**48):012x}"
            self._enter(Phase.OPENING, now)
            self.out.append(Open(self.serial, ticket, self._name))

    def opened(self, now: float) -> None:
        if self.phase is Phase.OPENING:
            self._enter(Phase.GREETING, now)

    def fail(self, now: float, reason: str) -> None:
        """Close the connection; the next attempt follows a pause with full jitter."""
        if self.phase is Phase.WAITING:
            return
        self.out.append(Close(self.serial, reason))
        if self.is_live and now - self.since >= self.terms.settled_s:
            self._failures = 0
        self._failures += 1
        terms = self.terms
        self.due = now + full_jitter_s(
            self._failures, terms.backoff_first_s, terms.backoff_cap_s, self.dice.random()
        )
        self.topics.clear()
        self._garbage.clear()
        self._ping = None
        self.rotate_at = _NEVER
        self.failed = reason
        self.lacks_ticket = self.phase is Phase.TICKET
        self._enter(Phase.WAITING, now)

    # --- incoming frames

    def control(self, frame: Control, now: float) -> None:
        """Handle a welcome, ack, pong or error."""
        self.last_frame = now
        if frame.kind == "error":
            self._error(frame, now)
        elif self.phase is Phase.GREETING:
            if frame.kind == "welcome":
                self._welcome(now)
            else:
                self.fail(now, "no_welcome")
        elif frame.kind == "pong":
            self._ping = None
        elif frame.kind == "ack" and frame.number is not None:
            self.topics.acknowledged(frame.number, now)
            self._ready(now)

    def register_message(self, now: float) -> bool:
        """Register a market message; False before the connection may send any."""
        self.last_frame = now
        if not self.is_open:
            self.fail(now, "data_before_welcome")
            return False
        return True

    def garbage(self, now: float) -> None:
        """Drop an invalid frame; several in a row end the connection."""
        self.last_frame = now
        row = self._garbage
        row.append(now)
        while row[0] <= now - self.terms.garbage_window_s:
            row.popleft()
        if len(row) > self.terms.garbage:
            self.fail(now, "garbage")

    def caught_up(self, now: float) -> None:
        if self.phase is Phase.CATCHING_UP:
            self._enter(Phase.LIVE, now)

    def resubscribe(self, topics: Iterable[StreamTopic], now: float) -> None:
        """Resubscribe topics that are silent here but move elsewhere, then move them on."""
        if not self.is_live:
            return
        still = self.topics.resubscribe(topics, now)
        if still and (self.is_own or 2 * len(still) >= len(self.topics.wanted)):
            self.fail(now, "stalled")
        elif still:
            self.topics.displace(still)

    # --- subscriptions

    def add(self, topics: Iterable[StreamTopic]) -> None:
        new = self.topics.add(topics)
        if self.is_open:
            self.topics.enqueue(SUBSCRIBE, new)

    def drop(self, topics: Iterable[StreamTopic]) -> None:
        gone = self.topics.drop(topics)
        if self.is_open:
            self.topics.enqueue(UNSUBSCRIBE, gone)

    # --- time

    def tick(self, now: float) -> None:
        """Apply all timeouts and due actions."""
        limits = {
            Phase.TICKET: self.terms.token_s,
            Phase.OPENING: self.terms.open_s,
            Phase.GREETING: self.terms.welcome_s,
        }
        limit = limits.get(self.phase)
        if limit is not None and now - self.since >= limit:
            self.fail(now, f"no_{'welcome' if self.phase is Phase.GREETING else self.phase}")
        if self.is_open:
            self._beat(now)
        if self.is_open and not self.topics.retry_overdue(now):
            self._after_last_try(now)
        if self.is_open:
            for number, command in self.topics.take_commands(now, self._number):
                self.out.append(Send(self.serial, number, command.kind, command.topics))
            self._ready(now)

    def _beat(self, now: float) -> None:
        if self._ping is not None:
            if now >= self._ping:
                self.fail(now, "no_pong")
        elif not self.topics.may_send(now):
            return  # a ping counts as a message: it goes before the next of them
        elif now >= self._next_ping:
            ticket = self._ticket
            self._send_ping(now, ticket.ping_timeout_s if ticket else self.terms.ping_timeout_s)
        elif now - self.last_frame >= self.terms.silence_s:
            self._send_ping(now, self.terms.check_s)

    def _send_ping(self, now: float, patience_s: float) -> None:
        self.out.append(Send(self.serial, self._number(), PING))
        self.topics.sent(now)
        self._ping = now + patience_s
        self._next_ping = now + self._interval_s

    @property
    def _interval_s(self) -> float:
        return self._ticket.ping_interval_s if self._ticket else self.terms.ping_interval_s

    def _ready(self, now: float) -> None:
        if self.phase is not Phase.SUBSCRIBING or not self.topics.is_settled:
            return
        if self.is_covered:
            self._enter(Phase.LIVE, now)
        else:
            self._enter(Phase.CATCHING_UP, now)
            self.out.append(Backfill(self.serial))

    def _welcome(self, now: float) -> None:
        earliest, latest = self.terms.rotate_s
        self._enter(Phase.SUBSCRIBING, now)
        self.rotate_at = now + earliest + (latest - earliest) * self.dice.random()
        self._next_ping = now + self._interval_s
        self.topics.begin(now)

    def _error(self, frame: Control, now: float) -> None:
        if frame.code in _REFUSED_CODES or not self.is_open:
            self.fail(now, f"refused_{frame.code}")
        elif not self.topics.failed(frame, now):
            self._after_last_try(now)

    def _after_last_try(self, now: float) -> None:
        """Release topics after their last try; a connection without others fails."""
        if self.is_own:
            self.topics.add(self.topics.displaced)
            self.topics.displaced.clear()
            self.fail(now, "unacknowledged")

    def _number(self) -> str:
        self._numbers += 1
        return str(self._numbers)

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase, self.since = phase, now
