"""An exchange and a network in virtual time in front of the fleet of connections."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from app.adapters.kucoin.stream.connection_pool import ConnectionPool
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
from app.market.domain.stream import StreamTopic, TopicKind

WAY_S = 0.03
DAY_S = 86_400.0


def quotes(count: int, first: int = 0) -> list[StreamTopic]:
    return [StreamTopic(TopicKind.QUOTE, f"C{n:03d}USDTM") for n in range(first, first + count)]


class Heard(Enum):
    """What is to become of a message."""

    WANTED = auto()
    STRANGE = auto()  # nobody asked for it, or no longer
    EARLY = auto()  # it came before the welcome, or to a connection that was let go


@dataclass
class Socket:
    """One connection as the exchange has it."""

    token: str
    born: float
    topics: set[StreamTopic] = field(default_factory=set)
    is_dead: bool = False  # half-open: nothing comes or goes any more


@dataclass
class World:
    """`step_s` apart; topics have an update every `update_interval_s`, with the next sequence."""

    terms: StreamLimits = field(default_factory=StreamLimits)
    seed: int = 1
    step_s: float = 0.1
    update_interval_s: float = 1.0
    now: float = 1_000.0
    # what goes wrong
    tickets: Callable[[int], bool] = lambda number: True
    accepts: Callable[[Socket], Control | None] = lambda socket: Control("welcome")
    greets: bool = True
    early: bool = False
    answers: Callable[[Send], Control | None] = lambda command: Control("ack", command.number)
    mute: Callable[[int, StreamTopic], bool] = lambda serial, topic: False
    catches_up: bool = True
    # what happened
    opened: list[tuple[float, str]] = field(default_factory=list)
    sent: list[tuple[float, Send]] = field(default_factory=list)
    closed: list[tuple[float, str]] = field(default_factory=list)
    backfills: int = 0
    taken: dict[StreamTopic, list[tuple[float, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    heard: dict[Heard, int] = field(default_factory=lambda: defaultdict(int))
    sockets: dict[int, Socket] = field(default_factory=dict)
    _later: list[tuple[float, Callable[[], list[Action]]]] = field(default_factory=list)
    _tickets: int = 0
    _sequence: int = 0
    _next: float = 0.0

    def __post_init__(self) -> None:
        self.fleet = ConnectionPool(self.terms, random.Random(self.seed))

    def want(self, topics: Iterable[StreamTopic]) -> None:
        self._perform(self.fleet.want(topics, self.now))

    def run(self, seconds: float, step_s: float | None = None) -> None:
        step, end = step_s or self.step_s, self.now + seconds
        while self.now < end:
            self.now += step
            while self._later and self._later[0][0] <= self.now:
                self._perform(self._later.pop(0)[1]())
            self._perform(self.fleet.tick(self.now))
            if self.now >= self._next:
                self._next = self.now + self.update_interval_s
                self._speak()

    def until(self, holds: Callable[[], bool], within_s: float) -> float:
        """Seconds that it took; fails when it does not come about."""
        begun = self.now
        while not holds():
            assert self.now - begun < within_s, "it did not come about"
            self.run(self.step_s)
        return self.now - begun

    def all_live(self) -> bool:
        wanted = self.fleet.wanted()
        return bool(wanted) and wanted <= self.fleet.live().keys()

    def is_live(self, topic: StreamTopic) -> bool:
        return topic in self.fleet.live()

    def hear(self, serial: int, topic: StreamTopic) -> Heard:
        """A message comes, and the fleet is asked about it as the stream does."""
        held = self.fleet.expect_messages(serial, self.now)
        if held is None:
            return Heard.EARLY
        return Heard.WANTED if held.on_message(topic) else Heard.STRANGE

    def cut(self, reason: str = "closed_1006") -> None:
        """The exchange ends every connection."""
        for serial in list(self.sockets):
            del self.sockets[serial]
            self._perform(self.fleet.ended(serial, reason, self.now))

    def _speak(self) -> None:
        self._sequence += 1
        for serial, socket in list(self.sockets.items()):
            for topic in sorted(socket.topics):
                if socket.is_dead or self.mute(serial, topic):
                    continue
                word = self.hear(serial, topic)
                self.heard[word] += 1
                if word is Heard.WANTED and self.is_live(topic):
                    self.taken[topic].append((self.now, self._sequence))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case AskTicket(serial):
                    self._tickets += 1
                    number = self._tickets
                    self._after(lambda s=serial, n=number: self._ticket(s, n))  # type: ignore[misc]  # bound now
                case Open(serial, ticket):
                    self.opened.append((self.now, ticket.token))
                    self.sockets[serial] = Socket(ticket.token, self.now)
                    self._perform(self.fleet.opened(serial, self.now))
                    self._greet(serial)
                case Send():
                    self.sent.append((self.now, action))
                    self._obey(action)
                case Close(serial, reason):
                    self.closed.append((self.now, reason))
                    self.sockets.pop(serial, None)
                case Backfill(serial):
                    self.backfills += 1
                    if self.catches_up:
                        self._after(lambda s=serial: self.fleet.caught_up(s, self.now))  # type: ignore[misc]  # bound now

    def _after(self, event: Callable[[], list[Action]]) -> None:
        self._later.append((self.now + WAY_S, event))

    def _ticket(self, serial: int, number: int) -> list[Action]:
        if not self.tickets(number):
            return self.fleet.ended(serial, "no_ticket", self.now)
        return self.fleet.ticket(
            serial, StreamTicket(f"t{number}", "wss://x", 18.0, 10.0), self.now
        )

    def _greet(self, serial: int) -> None:
        socket = self.sockets[serial]
        if self.early:
            self.heard[self.hear(serial, quotes(1)[0])] += 1
        word = self.accepts(socket)
        if word is not None and self.greets:
            self._after(lambda: self.fleet.control(serial, word, self.now))

    def _obey(self, command: Send) -> None:
        socket = self.sockets.get(command.connection)
        if socket is None or socket.is_dead:
            return
        word = Control("pong", command.number) if command.kind == "ping" else self.answers(command)
        if word is None:
            return
        if command.kind == "subscribe" and word.kind == "ack":
            socket.topics.update(command.topics)
        if command.kind == "unsubscribe":
            socket.topics.difference_update(command.topics)
        self._after(lambda: self.fleet.control(command.connection, word, self.now))
