"""Pool of stream connections: placement of topics, planned reconnects and takeover."""

from collections import Counter, deque
from collections.abc import Iterable

from app.adapters.kucoin.limiter import RandomSource
from app.adapters.kucoin.stream.connection import Phase, StreamConnection, Subscriptions
from app.adapters.kucoin.stream.protocol import Action, Close, Control, StreamLimits, StreamTicket
from app.market.domain.stream import StreamTopic


class ConnectionPool:
    """Takes events with their times in order; each returns the actions to carry out.

    Pure: equal events, times and random numbers give equal actions. Events of an abandoned
    attempt change nothing.
    """

    def __init__(self, terms: StreamLimits, dice: RandomSource) -> None:
        self.terms = terms
        self.failures: Counter[str] = Counter()
        self.rotations = 0
        self.connections: list[StreamConnection] = []
        self._dice = dice
        self._out: list[Action] = []
        self._serials = 0
        self._connects: deque[float] = deque()
        self._refused: dict[StreamTopic, float] = {}
        self._live: tuple[list[tuple[int, int]], dict[StreamTopic, float]] = ([], {})

    # --- state

    def live(self) -> dict[StreamTopic, float]:
        """Live topics with the time since which each is without a gap; cached until a change.

        A live topic was acknowledged, and none of its messages was missed.
        """
        connections = [connection for connection in self.connections if connection.is_live]
        state = [(connection.serial, connection.topics.changes) for connection in connections]
        if state != self._live[0]:
            found: dict[StreamTopic, float] = {}
            for connection in connections:
                for topic, since in connection.topics.acked.items():
                    found[topic] = min(since, found.get(topic, since))
            self._live = state, found
        return self._live[1]

    def wanted(self) -> set[StreamTopic]:
        """Requested topics that are not refused."""
        return {topic for connection in self.connections for topic in connection.topics.wanted}

    # --- events

    def want(self, topics: Iterable[StreamTopic], now: float) -> list[Action]:
        """Replace the requested topics."""
        requested, current = set(topics), self.wanted()
        for connection in self.connections:
            connection.drop([topic for topic in connection.topics.wanted if topic not in requested])
        self._refused = {
            topic: since
            for topic, since in self._refused.items()
            if topic in requested and now - since < self.terms.refused_s
        }
        self._place(sorted(requested - current - self._refused.keys()), now)
        for connection in [one for one in self.connections if not one.topics.wanted]:
            self._remove(connection, "not_wanted")
        return self._taken()

    def tick(self, now: float) -> list[Action]:
        """Advance the time."""
        for connection in list(self.connections):
            if (
                connection.phase is Phase.WAITING
                and now >= connection.due
                and self._may_connect(now)
            ):
                connection.begin(now, self._serial())
            connection.tick(now)
            self._settle(connection, now)
        for connection in list(self.connections):
            self._rotate(connection, now)
        return self._taken()

    def ticket(self, serial: int, ticket: StreamTicket, now: float) -> list[Action]:
        if (connection := self._find(serial)) is not None:
            connection.ticket(ticket, now)
            self._connects.append(now)
            for other in self.connections:  # the exchange answers again: no need to wait any longer
                if other.phase is Phase.WAITING and other.lacks_ticket:
                    other.due = min(other.due, now)
        return self._taken()

    def opened(self, serial: int, now: float) -> list[Action]:
        if (connection := self._find(serial)) is not None:
            connection.opened(now)
        return self._taken()

    def ended(self, serial: int, reason: str, now: float) -> list[Action]:
        """Handle a missing ticket, a failed connection or a closed one."""
        if (connection := self._find(serial)) is not None:
            connection.fail(now, reason)
            self._settle(connection, now)
        return self._taken()

    def control(self, serial: int, frame: Control, now: float) -> list[Action]:
        if (connection := self._find(serial)) is not None:
            connection.control(frame, now)
            self._settle(connection, now)
        return self._taken()

    def expect_messages(self, serial: int, now: float) -> Subscriptions | None:
        """Topics that may bring messages, valid until the next frame of another kind.

        None where messages are too early.
        """
        connection = self._find(serial)
        return (
            None
            if connection is None or not connection.register_message(now)
            else connection.topics
        )

    def open_subscriptions(self, serial: int, now: float) -> Subscriptions | None:
        """Topics requested of a connection that sent a frame; None while it may send none."""
        connection = self._find(serial)
        if connection is None or not connection.is_open:
            return None
        connection.last_frame = now
        return connection.topics

    def garbage(self, serial: int, now: float) -> None:
        """Register an invalid frame; its effect follows in the next tick."""
        if (connection := self._find(serial)) is not None:
            connection.garbage(now)

    def caught_up(self, serial: int, now: float) -> list[Action]:
        if (connection := self._find(serial)) is not None:
            connection.caught_up(now)
        return self._taken()

    def resubscribe(self, topics: Iterable[StreamTopic], now: float) -> list[Action]:
        """Register topics that moved elsewhere without a message here."""
        silent = list(topics)
        for connection in list(self.connections):
            connection.resubscribe(silent, now)
            self._settle(connection, now)
        return self._taken()

    # --- placement

    def _settle(self, connection: StreamConnection, now: float) -> None:
        """Move topics that a connection could not subscribe."""
        if connection.failed is not None:
            self.failures[connection.failed] += 1
            connection.failed = None
            if connection.successor is not None:  # brings the same topics, but with a gap
                connection.successor.is_covered = False
                self._remove(connection, "succeeded")
        for topic in connection.topics.refused:
            self._refused[topic] = now
        connection.topics.refused.clear()
        if connection.topics.displaced:
            topics = [topic for topic in connection.topics.displaced if topic not in self.wanted()]
            connection.topics.displaced.clear()
            self._place(topics, now, own=True)
        if not connection.topics.wanted and connection in self.connections:
            self._remove(connection, "empty")

    def _rotate(self, connection: StreamConnection, now: float) -> None:
        heir = connection.successor
        if heir is None:
            if connection.is_live and now >= connection.rotate_at:
                heir = connection.successor = self._new(now, own=connection.is_own)
                heir.add(connection.topics.wanted)
                heir.is_covered = True
                self.rotations += 1
            return
        heir.is_covered = connection.is_live
        if heir not in self.connections:
            connection.successor = None
        elif not heir.is_live:
            connection.retire_at = float("inf")
        elif connection.retire_at == float("inf"):
            connection.retire_at = now + self.terms.overlap_s
        elif now >= connection.retire_at:
            heir.is_covered = False
            self._remove(connection, "rotated")

    def _place(self, topics: list[StreamTopic], now: float, *, own: bool = False) -> None:
        left = deque(topics)
        while left:
            connection = self._with_room(own=own)
            if connection is None:
                connection = self._new(now, own=own)
            room = self.terms.topics_per_connection - len(connection.topics.wanted)
            connection.add([left.popleft() for _ in range(min(room, len(left)))])

    def _with_room(self, *, own: bool) -> StreamConnection | None:
        """Connection with room for a topic; a new one while there are few."""
        alike = [connection for connection in self.connections if connection.is_own is own]
        if own and len(alike) < self.terms.own_connections:
            return None
        for connection in alike:
            taken = (
                connection.topics.is_full
                or connection.successor is not None
                or connection.is_covered
            )
            if not taken and len(connection.topics.wanted) < self.terms.topics_per_connection:
                return connection
        return None

    def _new(self, now: float, *, own: bool) -> StreamConnection:
        topics = Subscriptions(self.terms)
        connection = StreamConnection(
            self.terms, self._dice, self._out, now, self._serial(), topics, is_own=own
        )
        connection.since = now
        self.connections.append(connection)
        return connection

    def _remove(self, connection: StreamConnection, reason: str) -> None:
        self.connections.remove(connection)
        if connection.phase is not Phase.WAITING:
            self._out.append(Close(connection.serial, reason))

    def _may_connect(self, now: float) -> bool:
        row = self._connects
        while row and row[0] <= now - self.terms.connects_window_s:
            row.popleft()
        asking = sum(connection.phase is Phase.TICKET for connection in self.connections)
        return len(row) + asking < self.terms.connects

    def _find(self, serial: int) -> StreamConnection | None:
        for connection in self.connections:
            if connection.serial == serial and connection.phase is not Phase.WAITING:
                return connection
        return None

    def _serial(self) -> int:
        self._serials += 1
        return self._serials

    def _taken(self) -> list[Action]:
        taken = list(self._out)
        self._out.clear()
        return taken
