"""Reader of the event stream: subscriptions, position, replay and conflation."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from app.foundation.events import EventRecord, Topic
from app.operations.services.event_messages import Frame, frame_of, notice

WINDOW: Final = 1_024  # events examined in one call
BEHIND: Final = 64  # with a longer backlog only the newest score of a symbol is sent
TOO_OLD: Final = "too_old"
UNKNOWN: Final = "unknown_sequence"
WENT_BACK: Final = "sequence_went_back"  # sequence numbers are reused


@dataclass(slots=True)
class StreamEntry:
    """Event in memory; its text is built once at the first read."""

    record: EventRecord
    _frame: Frame | None = None

    @property
    def frame(self) -> Frame:
        if self._frame is None:
            self._frame = frame_of(self.record)
        return self._frame


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """Page of stored events: complete up to `upto`; `floor` is the oldest kept number."""

    entries: tuple[StreamEntry, ...]
    upto: int
    floor: int
    head: int


@dataclass(slots=True)
class RecentEvents:
    """Contiguous buffer of the newest events, at least `capacity` of them."""

    capacity: int
    head: int = 0
    _entries: list[StreamEntry] = field(default_factory=list)
    _first: EventRecord | None = None

    @property
    def newest(self) -> EventRecord | None:
        """Event with the number `head`; None if it was never read."""
        return self._entries[-1].record if self._entries else self._first

    def begin(self, head: int, newest: EventRecord | None = None) -> None:
        """Restart at `head`; `newest` is its event, None if it is no longer stored."""
        self.head, self._first = head, newest
        self._entries.clear()

    def extend(self, entries: Iterable[StreamEntry]) -> None:
        for entry in entries:
            if entry.record.seq != self.head + 1:
                self._entries.clear()  # events in between were deleted unread
            self._entries.append(entry)
            self.head = entry.record.seq
        if len(self._entries) > 2 * self.capacity:
            del self._entries[: -self.capacity]

    def after(self, position: int, limit: int) -> list[StreamEntry] | None:
        """Events after `position`, oldest first; None where the buffer starts later."""
        first = self.head - len(self._entries)  # number before the oldest entry
        if position < first:
            return None
        start = position - first
        return self._entries[start : start + limit]


@dataclass(slots=True, eq=False)
class EventReader:
    """Position in the shared buffer; `next` returns the frames after it.

    `position` is the number up to which all subscribed events were returned.
    """

    recent: RecentEvents
    stored: Callable[[int, frozenset[Topic]], Awaitable[StoredEvents]]
    quotes: Mapping[str, Frame]
    conflated: Callable[[float], None]
    topics: frozenset[Topic] = frozenset()
    symbols: frozenset[str] = frozenset()
    position: int = field(init=False)
    _exact_upto: int = 0  # end of a replay without conflation
    _asked: int = 0  # version of the subscriptions
    _notes: list[Frame] = field(default_factory=list)  # notices before the next event
    _pending: dict[str, None] = field(default_factory=dict)  # symbols with an unsent quote
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.position = self.recent.head

    def ask(self, topics: AbstractSet[Topic], symbols: AbstractSet[str]) -> None:
        """Replace the subscriptions; new symbols get their current quote at once."""
        self._pending |= dict.fromkeys(sorted((symbols - self.symbols) & self.quotes.keys()))
        self._pending = {name: None for name in self._pending if name in symbols}
        self.topics, self.symbols = frozenset(topics), frozenset(symbols)
        self._asked += 1
        self.wake()

    def note(self, frame: Frame) -> None:
        """Queue a notice about the stream in order with the events."""
        self._notes.append(frame)
        self.wake()

    async def resume(self, after: int) -> None:
        """Resume after number `after`, or queue a gap and continue from now.

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
        """Queue a gap after lost events and continue from `page`."""
        self._asked += 1
        since, self.position, self._exact_upto = self.position, page.head, 0
        self.note(_gap(since, page, WENT_BACK))

    async def next(self) -> list[Frame]:
        """Wait for frames and return at most one window of them.

        Raises UnavailableError where a replay cannot be read.
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

    def notify(self, topics: AbstractSet[Topic], since: int) -> None:
        """Announce events of these topics after number `since`.

        A reader without a matching subscription only advances its position.
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
        """Page from the database; deleted events are reported as a gap."""
        since, asked = self.position, self._asked
        page = await self.stored(since, self.topics)
        if self._asked != asked:
            return []  # subscriptions changed during the read
        self.position = page.upto
        frames = [entry.frame for entry in page.entries]
        return frames if since >= page.floor else [_gap(since, page, TOO_OLD), *frames]

    def _conflated(self, waiting: list[StreamEntry]) -> list[Frame]:
        """Conflate scores: the newest of each symbol, with the change since the last one sent."""
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
