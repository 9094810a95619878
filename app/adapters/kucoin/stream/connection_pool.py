"""Pool of stream connections: placement of topics, planned reconnects and takeover."""

from collections import Counter, deque
from collections.abc import Iterable

from app.adapters.kucoin.limiter import RandomSource
from app.adapters.kucoin.stream.connection import Phase, StreamConnection, Subscriptions
from app.adapters.kucoin.stream.protocol import Action, Close, Control, StreamLimits, StreamTicket
from app.market.domain.stream import Topic


class ConnectionPool:
    """Takes events with their times in order; each returns the actions to carry out.

    Pure: equal events, times and random numbers give equal actions. Events of an abandoned
    attempt change nothing.
    """

    def __init__(self, terms: StreamLimits, dice: RandomSource) -> None:
        self.terms = terms
        self.failures: Counter[str] = Counter()
        self.rotations = 0
        self.lines: list[StreamConnection] = []
        self._dice = dice
        self._out: list[Action] = []
        self._serials = 0
        self._connects: deque[float] = deque()
        self._refused: dict[Topic, float] = {}
        self._live: tuple[list[tuple[int, int]], dict[Topic, float]] = ([], {})

    # --- state

    def live(self) -> dict[Topic, float]:
        """Live topics with the time since which each is without a gap; cached until a change.

        A live topic was acknowledged, and none of its messages was missed.
        """
        lines = [line for line in self.lines if line.is_live]
        state = [(line.serial, line.topics.changes) for line in lines]
        if state != self._live[0]:
            found: dict[Topic, float] = {}
            for line in lines:
                for topic, since in line.topics.acked.items():
                    found[topic] = min(since, found.get(topic, since))
            self._live = state, found
        return self._live[1]

    def wanted(self) -> set[Topic]:
        """Requested topics that are not refused."""
        return {topic for line in self.lines for topic in line.topics.wanted}

    # --- events

    def want(self, topics: Iterable[Topic], now: float) -> list[Action]:
        """Replace the requested topics."""
        asked, held = set(topics), self.wanted()
        for line in self.lines:
            line.drop([topic for topic in line.topics.wanted if topic not in asked])
        self._refused = {
            topic: since
            for topic, since in self._refused.items()
            if topic in asked and now - since < self.terms.refused_s
        }
        self._place(sorted(asked - held - self._refused.keys()), now)
        for line in [one for one in self.lines if not one.topics.wanted]:
            self._remove(line, "not_wanted")
        return self._taken()

    def tick(self, now: float) -> list[Action]:
        """Advance the time."""
        for line in list(self.lines):
            if line.phase is Phase.WAITING and now >= line.due and self._may_connect(now):
                line.begin(now, self._serial())
            line.tick(now)
            self._settle(line, now)
        for line in list(self.lines):
            self._rotate(line, now)
        return self._taken()

    def ticket(self, serial: int, ticket: StreamTicket, now: float) -> list[Action]:
        if (line := self._line(serial)) is not None:
            line.ticket(ticket, now)
            self._connects.append(now)
            for other in self.lines:  # the exchange answers again: no need to wait any longer
                if other.phase is Phase.WAITING and other.lacks_ticket:
                    other.due = min(other.due, now)
        return self._taken()

    def opened(self, serial: int, now: float) -> list[Action]:
        if (line := self._line(serial)) is not None:
            line.opened(now)
        return self._taken()

    def ended(self, serial: int, reason: str, now: float) -> list[Action]:
        """Handle a missing ticket, a failed connection or a closed one."""
        if (line := self._line(serial)) is not None:
            line.fail(now, reason)
            self._settle(line, now)
        return self._taken()

    def control(self, serial: int, frame: Control, now: float) -> list[Action]:
        if (line := self._line(serial)) is not None:
            line.control(frame, now)
            self._settle(line, now)
        return self._taken()

    def speaking(self, serial: int, now: float) -> Subscriptions | None:
        """Topics that may bring messages, valid until the next frame of another kind.

        None where messages are too early.
        """
        line = self._line(serial)
        return None if line is None or not line.speaks(now) else line.topics

    def open_line(self, serial: int, now: float) -> Subscriptions | None:
        """Topics requested of a connection that sent a frame; None while it may send none."""
        line = self._line(serial)
        if line is None or not line.is_open:
            return None
        line.last_frame = now
        return line.topics

    def garbage(self, serial: int, now: float) -> None:
        """Register an invalid frame; its effect follows in the next tick."""
        if (line := self._line(serial)) is not None:
            line.garbage(now)

    def caught_up(self, serial: int, now: float) -> list[Action]:
        if (line := self._line(serial)) is not None:
            line.caught_up(now)
        return self._taken()

    def deaf(self, topics: Iterable[Topic], now: float) -> list[Action]:
        """Register topics that moved elsewhere without a message here."""
        silent = list(topics)
        for line in list(self.lines):
            line.deaf(silent, now)
            self._settle(line, now)
        return self._taken()

    # --- placement

    def _settle(self, line: StreamConnection, now: float) -> None:
        """Move topics that a connection could not subscribe."""
        if line.failed is not None:
            self.failures[line.failed] += 1
            line.failed = None
            if line.successor is not None:  # brings the same topics, but with a gap
                line.successor.is_covered = False
                self._remove(line, "succeeded")
        for topic in line.topics.refused:
            self._refused[topic] = now
        line.topics.refused.clear()
        if line.topics.displaced:
            topics = [topic for topic in line.topics.displaced if topic not in self.wanted()]
            line.topics.displaced.clear()
            self._place(topics, now, own=True)
        if not line.topics.wanted and line in self.lines:
            self._remove(line, "empty")

    def _rotate(self, line: StreamConnection, now: float) -> None:
        heir = line.successor
        if heir is None:
            if line.is_live and now >= line.rotate_at:
                heir = line.successor = self._new(now, own=line.is_own)
                heir.add(line.topics.wanted)
                heir.is_covered = True
                self.rotations += 1
            return
        heir.is_covered = line.is_live
        if heir not in self.lines:
            line.successor = None
        elif not heir.is_live:
            line.retire_at = float("inf")
        elif line.retire_at == float("inf"):
            line.retire_at = now + self.terms.overlap_s
        elif now >= line.retire_at:
            heir.is_covered = False
            self._remove(line, "rotated")

    def _place(self, topics: list[Topic], now: float, *, own: bool = False) -> None:
        left = deque(topics)
        while left:
            line = self._with_room(own=own)
            if line is None:
                line = self._new(now, own=own)
            room = self.terms.topics_per_line - len(line.topics.wanted)
            line.add([left.popleft() for _ in range(min(room, len(left)))])

    def _with_room(self, *, own: bool) -> StreamConnection | None:
        """Connection with room for a topic; a new one while there are few."""
        alike = [line for line in self.lines if line.is_own is own]
        if own and len(alike) < self.terms.own_lines:
            return None
        for line in alike:
            taken = line.topics.is_full or line.successor is not None or line.is_covered
            if not taken and len(line.topics.wanted) < self.terms.topics_per_line:
                return line
        return None

    def _new(self, now: float, *, own: bool) -> StreamConnection:
        topics = Subscriptions(self.terms)
        line = StreamConnection(
            self.terms, self._dice, self._out, now, self._serial(), topics, is_own=own
        )
        line.since = now
        self.lines.append(line)
        return line

    def _remove(self, line: StreamConnection, reason: str) -> None:
        self.lines.remove(line)
        if line.phase is not Phase.WAITING:
            self._out.append(Close(line.serial, reason))

    def _may_connect(self, now: float) -> bool:
        row = self._connects
        while row and row[0] <= now - self.terms.connects_window_s:
            row.popleft()
        asking = sum(line.phase is Phase.TICKET for line in self.lines)
        return len(row) + asking < self.terms.connects

    def _line(self, serial: int) -> StreamConnection | None:
        for line in self.lines:
            if line.serial == serial and line.phase is not Phase.WAITING:
                return line
        return None

    def _serial(self) -> int:
        self._serials += 1
        return self._serials

    def _taken(self) -> list[Action]:
        taken = list(self._out)
        self._out.clear()
        return taken
