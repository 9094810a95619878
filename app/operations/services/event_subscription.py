"""One reader of the stream: what it asked for, how far it is, and what it gets next."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from app.foundation.events import EventRecord, Topic
from app.operations.services.event_messages import Frame, frame_of, notice

WINDOW: Final = 1_024  # events looked at in one go
BEHIND: Final = 64  # with more than this waiting, only the newest score of a symbol is given
TOO_OLD: Final = "too_old"
UNKNOWN: Final = "unknown_sequence"
WENT_BACK: Final = "sequence_went_back"  # numbers that were given are given again


@dataclass(slots=True)
class StreamEntry:
    """An event in memory; its text is made when the first reader needs it, once for all."""

    record: EventRecord
    _frame: Frame | None = None

    @property
    def frame(self) -> Frame:
        if self._frame is None:
            self._frame = frame_of(self.record)
        return self._frame


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """A page of the past: up to where it tells everything, and what is kept at all."""

    entries: tuple[StreamEntry, ...]
    upto: int
    floor: int
    head: int


@dataclass(slots=True)
class RecentEvents:
    """The newest events without a hole, at least `capacity` of them once there are so many."""

    capacity: int
    head: int = 0
    _entries: list[StreamEntry] = field(default_factory=list)
    _first: EventRecord | None = None

    @property
    def newest(self) -> EventRecord | None:
        """The event with the number `head`; None where it was never read."""
        return self._entries[-1].record if self._entries else self._first

    def begin(self, head: int, newest: EventRecord | None = None) -> None:
        """`newest` is the event with that number; None where it is no longer kept."""
        self.head, self._first = head, newest
        self._entries.clear()

    def extend(self, entries: Iterable[StreamEntry]) -> None:
        for entry in entries:
            if entry.record.seq != self.head + 1:
                self._entries.clear()  # what lies between was dropped before it was read
            self._entries.append(entry)
            self.head = entry.record.seq
        if len(self._entries) > 2 * self.capacity:
            del self._entries[: -self.capacity]

    def after(self, position: int, limit: int) -> list[StreamEntry] | None:
        """Those after `position`, oldest first; None where memory does not go back so far."""
        first = self.head - len(self._entries)  # the number before the oldest
        if position < first:
            return None
        start = position - first
        return self._entries[start : start + limit]


@dataclass(slots=True, eq=False)
class EventReader:
    """Holds a position in what all readers share; `next` gives what comes after it.

    `position` is the number up to which it has been given everything that it asked for.
    """

    recent: RecentEvents
    stored: Callable[[int, frozenset[Topic]], Awaitable[StoredEvents]]
    quotes: Mapping[str, Frame]
    conflated: Callable[[float], None]
    topics: frozenset[Topic] = frozenset()
    symbols: frozenset[str] = frozenset()
    position: int = field(init=False)
    _exact_upto: int = 0  # a replay: every single event up to here
    _asked: int = 0  # how often it was changed what is wanted
    _notes: list[Frame] = field(default_factory=list)  # said before the next event
    _pending: dict[str, None] = field(default_factory=dict)  # symbols with a new quote
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.position = self.recent.head

    def ask(self, topics: AbstractSet[Topic], symbols: AbstractSet[str]) -> None:
        """These instead of what it asked for before; new symbols get the present quote at once."""
        self._pending |= dict.fromkeys(sorted((symbols - self.symbols) & self.quotes.keys()))
        self._pending = {name: None for name in self._pending if name in symbols}
        self.topics, self.symbols = frozenset(topics), frozenset(symbols)
        self._asked += 1
        self.wake()

    def note(self, frame: Frame) -> None:
        """Says something about the stream itself, in its place between the events."""
        self._notes.append(frame)
        self.wake()

    async def resume(self, after: int) -> None:
        """Goes back to just after number `after`, or notes why it cannot and goes on from now.

        Raises UnavailableError.
        """
        page = await self.stored(after, frozenset())
        self._asked += 1
        if page.floor <= after <= page.head:
            self.position, self._exact_upto = after, page.head
            self.note(notice("resumed", page.head, resume_from=after))
        else:
            self.position = page.head
            self.note(_gap(after, page, TOO_OLD if after < page.floor else UNKNOWN))

    def begin_anew(self, page: StoredEvents) -> None:
        """Notes that what it was given last is not so any more, and goes on from `page`."""
        self._asked += 1
        since, self.position, self._exact_upto = self.position, page.head, 0
        self.note(_gap(since, page, WENT_BACK))

    async def next(self) -> list[Frame]:
        """Waits until there is something to give, then gives it; each call at most a window.

        Raises UnavailableError where the past must be read and cannot be.
        """
        while True:
            self._woken.clear()
            notes, self._notes = self._notes, []
            if notes:
                return notes
            frames = [*await self._events(), *self._new_quotes()]
            if frames:
                return frames
            await self._woken.wait()

    def wake(self) -> None:
        self._woken.set()

    def told(self, topics: AbstractSet[Topic], since: int) -> None:
        """There are events of these topics after number `since`.

        Who has everything before them and asked for none of them is not woken for nothing.
        """
        if self.position == since and not self.topics & topics:
            self.position = self.recent.head
        else:
            self.wake()

    def quoted(self, symbols: AbstractSet[str]) -> None:
        mine = self.symbols & symbols
        if mine:
            self._pending |= dict.fromkeys(sorted(mine))
            self.wake()

    def _new_quotes(self) -> list[Frame]:
        waiting, self._pending = self._pending, {}
        return [self.quotes[name] for name in waiting]

    async def _events(self) -> list[Frame]:
        frames: list[Frame] = []
        while not frames and self.position < self.recent.head:
            if not self.topics:
                self.position = self.recent.head
                break
            window = self.recent.after(self.position, WINDOW)
            if window is None:
                frames = await self._past()
                continue
            is_replay = self.position < self._exact_upto
            self.position = window[-1].record.seq
            waiting = [one for one in window if one.record.topic in self.topics]
            many = len(waiting) > BEHIND and not is_replay
            frames = self._conflated(waiting) if many else [one.frame for one in waiting]
        return frames

    async def _past(self) -> list[Frame]:
        """A page from the database; what is no longer kept is named, not passed over."""
        since, asked = self.position, self._asked
        page = await self.stored(since, self.topics)
        if self._asked != asked:
            return []  # while it was read something else was asked for
        self.position = page.upto
        frames = [entry.frame for entry in page.entries]
        return frames if since >= page.floor else [_gap(since, page, TOO_OLD), *frames]

    def _conflated(self, waiting: list[StreamEntry]) -> list[Frame]:
        """Of each symbol only the newest score, with the change since the last one given."""
        newest = {entry.record.subject: entry for entry in waiting if _is_score(entry)}
        before: dict[str | None, float | None] = {}
        frames: list[Frame] = []
        for entry in waiting:
            subject = entry.record.subject
            if _is_score(entry) and newest[subject] is not entry:
                before.setdefault(subject, entry.record.data["old_score"])
                self.conflated(1.0)
            elif _is_score(entry) and subject in before:
                frames.append(frame_of(entry.record, before[subject], merged=True))
            else:
                frames.append(entry.frame)
        return frames


def _gap(since: int, page: StoredEvents, reason: str) -> Frame:
    return notice("gap", page.head, resume_from=since, reason=reason, oldest=page.floor + 1)


def _is_score(entry: StreamEntry) -> bool:
    return entry.record.topic is Topic.SCORE_UPDATE
