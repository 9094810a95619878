"""Event stream: committed events of all processes; subscriptions with replay and conflation."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from app.foundation.clock import SharedClock, current_time
from app.foundation.errors import Code, UnavailableError
from app.foundation.events import EventRecord, EventTopic
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock
from app.foundation.sql.database import BULK_STATEMENT_S, CommitMark, Database
from app.foundation.sql.events import EventRepository
from app.market.services.service import MarketData
from app.market.services.snapshot import MarketMoment, QuoteView
from app.operations.services.event_messages import (
    GAP,
    Details,
    Frame,
    LiveState,
    LiveTopic,
    event_frame,
    notice,
    ticker_details,
    ticker_frame,
)

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
            self._frame = event_frame(self.record)
        return self._frame


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """Page of stored events: complete up to `upto`; `floor` is the newest deleted number."""

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

    def restart(self, head: int, newest: EventRecord | None = None) -> None:
        """Restarts at `head`; `newest` is its event, None if it is no longer stored."""
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
        """Returns events after `position`, oldest first; None if the buffer starts later."""
        first = self.head - len(self._entries)  # number before the oldest entry
        if position < first:
            return None
        start = position - first
        return self._entries[start : start + limit]


class ReaderEndedError(Exception):
    """The reader was ended from outside."""


@dataclass(slots=True, eq=False)
class EventReader:
    """Position in the shared buffer; `next` returns the frames after it.

    `position` is the number up to which all subscribed events were returned.
    """

    recent: RecentEvents
    stored: Callable[[int, frozenset[EventTopic]], Awaitable[StoredEvents]]
    quotes: Mapping[str, Frame]
    conflated: Callable[[float], None]
    live_states: Mapping[LiveTopic, LiveState] = field(default_factory=dict)
    topics: frozenset[EventTopic] = frozenset()
    symbols: frozenset[str] = frozenset()
    live: frozenset[LiveTopic] = frozenset()
    position: int = field(init=False)
    _exact_upto: int = 0  # end of a replay without conflation
    _subscription: int = 0  # version of the subscriptions
    _notes: list[Frame] = field(default_factory=list)  # notices before the next event
    _pending: dict[str, None] = field(default_factory=dict)  # symbols with an unsent quote
    _live_seen: dict[LiveTopic, int | None] = field(default_factory=dict)  # last version sent
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _is_ended: bool = False

    def __post_init__(self) -> None:
        self.position = self.recent.head

    def subscribe(
        self,
        topics: AbstractSet[EventTopic],
        symbols: AbstractSet[str],
        live: AbstractSet[LiveTopic] = frozenset(),
    ) -> None:
        """Replaces the subscriptions; new symbols and live topics get their state at once."""
        self._pending |= dict.fromkeys(sorted((symbols - self.symbols) & self.quotes.keys()))
        self._pending = {name: None for name in self._pending if name in symbols}
        self.topics, self.symbols, self.live = (
            frozenset(topics),
            frozenset(symbols),
            frozenset(live),
        )
        self._live_seen = {name: self._live_seen.get(name) for name in sorted(live)}
        self._subscription += 1
        self.wake()

    def note(self, frame: Frame) -> None:
        """Queues a notice about the stream in order with the events."""
        self._notes.append(frame)
        self.wake()

    async def resume(self, after: int) -> None:
        """Resumes after number `after`, or queues a gap and continues from now.

        Raises UnavailableError.
        """
        page = await self.stored(after, frozenset())
        self._subscription += 1
        if page.floor <= after <= page.head:
            self.position, self._exact_upto = after, page.head
            self.note(notice("resumed", page.head, resume_from=after))
        else:
            self.position = page.head
            reason = TOO_OLD if after < page.floor else UNKNOWN
            self.note(_gap(after, page.head, page, reason))

    def restart(self, page: StoredEvents) -> None:
        """Queues a gap after lost events and continues from `page`."""
        self._subscription += 1
        since, self.position, self._exact_upto = self.position, page.head, 0
        self.note(_gap(since, page.head, page, WENT_BACK))

    async def next(self) -> list[Frame]:
        """Waits for frames and returns at most one window of them.

        Raises UnavailableError if a replay cannot be read, and ReaderEndedError after `end`.
        """
        while True:
            if self._is_ended:
                raise ReaderEndedError
            self._woken.clear()
            notes, self._notes = self._notes, []
            if notes:
                return notes
            frames = [*await self._events(), *self._new_quotes(), *self._new_live()]
            if frames:
                return frames
            await self._woken.wait()

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        """Makes `next` raise ReaderEndedError from now on: its caller lost the right to read."""
        self._is_ended = True
        self.wake()

    def notify(self, topics: AbstractSet[EventTopic], since: int) -> None:
        """Notifies about events of these topics after number `since`.

        A reader without a matching subscription only advances its position.
        """
        if self.position == since and not self.topics & topics:
            self.position = self.recent.head
        else:
            self.wake()

    def notify_quotes(self, symbols: AbstractSet[str]) -> None:
        own = self.symbols & symbols
        if own:
            self._pending |= dict.fromkeys(sorted(own))
            self.wake()

    def _new_quotes(self) -> list[Frame]:
        waiting, self._pending = self._pending, {}
        return [self.quotes[name] for name in waiting]

    def notify_live(self, topic: LiveTopic) -> None:
        if topic in self.live:
            self.wake()

    def _new_live(self) -> list[Frame]:
        frames: list[Frame] = []
        for topic, seen in self._live_seen.items():
            state = self.live_states.get(topic)
            if state is not None and state.version != seen:
                frames.append(state.frame(seen))
                self._live_seen[topic] = state.version
        return frames

    async def _events(self) -> list[Frame]:
        frames: list[Frame] = []
        while not frames and self.position < self.recent.head:
            if not self.topics:
                self.position = self.recent.head
                break
            window = self.recent.after(self.position, WINDOW)
            if window is None:
                frames = await self._load_past()
                continue
            is_replay = self.position < self._exact_upto
            self.position = window[-1].record.seq
            waiting = [one for one in window if one.record.topic in self.topics]
            many = len(waiting) > BEHIND and not is_replay
            frames = self._conflated(waiting) if many else [one.frame for one in waiting]
        return frames

    async def _load_past(self) -> list[Frame]:
        """Returns a page from the database; deleted events are reported as a gap."""
        since, subscription = self.position, self._subscription
        page = await self.stored(since, self.topics)
        if self._subscription != subscription:
            return []  # subscriptions changed during the read
        self.position = page.upto
        frames = [entry.frame for entry in page.entries]
        return frames if since >= page.floor else [_gap(since, page.floor, page, TOO_OLD), *frames]

    def _conflated(self, waiting: list[StreamEntry]) -> list[Frame]:
        """Conflates scores: the newest of each symbol, with the change since the last one sent."""
        newest = {entry.record.subject: entry for entry in waiting if _is_score(entry)}
        before: dict[str | None, float | None] = {}
        frames: list[Frame] = []
        for entry in waiting:
            subject = entry.record.subject
            if _is_score(entry) and newest[subject] is not entry:
                before.setdefault(subject, entry.record.data["old_score"])
                self.conflated(1.0)
            elif _is_score(entry) and subject in before:
                frames.append(event_frame(entry.record, before[subject], merged=True))
            else:
                frames.append(entry.frame)
        return frames


def _gap(since: int, upto: int, page: StoredEvents, reason: str) -> Frame:
    """Returns the notice that events after `since` are missing; the stream goes on after `upto`."""
    return notice(GAP, upto, resume_from=since, reason=reason, oldest=page.floor + 1)


def _is_score(entry: StreamEntry) -> bool:
    return entry.record.topic is EventTopic.SCORE_UPDATE


MAX_READERS: Final = 1_000
RECENT: Final = 4_096  # events in memory, shared by all readers
POLL_S: Final = 1.0  # guaranteed interval; a hint shortens it
KEEP: Final = timedelta(hours=24)
MAX_STORED: Final = 500_000  # events of any age
_PAGE: Final = 500
_GATHER_S: Final = 0.01  # close events are published together
_REPLAY_PAGE: Final = 256
_RETRY_S: Final = 5.0
_log = structlog.get_logger("stream")


async def no_reread() -> None:
    """Default callback without effect."""


@dataclass(slots=True)
class EventStream:
    """Event stream of one process: reads committed events of all processes in order.

    Readers hold a position in a shared buffer and no queue, so that a slow reader costs nothing.
    `on_record` receives every event. A failover that lost the last commits is detected: every
    reader gets a gap. `reread` runs then and at each start of following, since a lost connection
    may have lost notifications.
    """

    database: Database
    clock: Clock
    metrics: Metrics
    on_record: Callable[[EventRecord], None] = lambda _: None
    reread: Callable[[], Awaitable[None]] = no_reread
    max_readers: int = MAX_READERS
    shared: SharedClock | None = None  # None: no other process uses the database
    _recent: RecentEvents = field(default_factory=lambda: RecentEvents(RECENT))
    _readers: set[EventReader] = field(default_factory=set)
    _quotes: dict[str, Frame] = field(default_factory=dict)
    _live: dict[LiveTopic, LiveState] = field(default_factory=dict)
    _live_versions: Counter[LiveTopic] = field(default_factory=Counter)
    _hint: asyncio.Event = field(default_factory=asyncio.Event)
    _mark: CommitMark = field(default_factory=CommitMark, init=False)

    async def open(self) -> None:
        """Starts at the newest event; older ones are read from the database on demand."""
        async with self.database.read() as unit:
            head = await unit.get(EventRepository).head()
            newest = await unit.get(EventRepository).after(head - 1, 1)
        self._recent.restart(head, _with_number(head, newest))

    def wake(self) -> None:
        """Polls now: there may be new events."""
        self._hint.set()

    async def follow(self, beat: Callable[[], None]) -> None:
        """Follows committed events until cancelled; restart it after UnavailableError."""
        await self.reread()
        while True:
            self._hint.clear()
            await self.catch_up()
            beat()
            await asyncio.sleep(_GATHER_S)
            try:
                async with asyncio.timeout(POLL_S):
                    await self._hint.wait()
            except TimeoutError:
                continue

    async def catch_up(self) -> None:
        """Publishes everything committed so far to the readers."""
        if self._mark.is_newest(self.database):
            return
        commits = self.database.commits
        while True:
            known, newest = self._recent.head, self._recent.newest
            async with self.database.read() as unit:
                # The newest known event is read again: after an unnoticed failover its number may
                # belong to another event.
                page = await unit.get(EventRepository).after(known - 1, _PAGE)
                if page and page[0].seq == known:
                    is_lost = newest is not None and page[0] != newest
                    page = page[1:]
                else:
                    is_lost = not page and await unit.get(EventRepository).head() < known
            if is_lost:
                await self._restart()
            if is_lost or not page:
                self._mark.move(commits)
                return
            # A concurrent call may have read them already.
            since = self._recent.head
            new = [record for record in page if record.seq > self._recent.head]
            self._recent.extend(StreamEntry(record) for record in new)
            for record in new:
                self.on_record(record)
            topics = frozenset(record.topic for record in new)
            for reader in self._readers:
                reader.notify(topics, since)
            if len(page) < _PAGE - 1:
                self._mark.move(commits)
                return

    async def _restart(self) -> None:
        """Resets the readers after the database lost the last events."""
        await self.reread()
        page = await self.stored(0, frozenset())
        _log.error("event_sequence_went_back", known=self._recent.head, stored=page.head)
        async with self.database.read() as unit:
            newest = await unit.get(EventRepository).after(page.head - 1, 1)
        self._recent.restart(page.head, _with_number(page.head, newest))
        for reader in self._readers:
            reader.restart(page)

    @property
    def head(self) -> int:
        """Newest sequence number in memory."""
        return self._recent.head

    async def stored(self, after: int, topics: frozenset[EventTopic]) -> StoredEvents:
        """Returns a page from the database for a reader behind the buffer in memory."""
        async with self.database.read() as unit:
            head, floor = (
                await unit.get(EventRepository).head(),
                await unit.get(EventRepository).floor(),
            )
            page = await unit.get(EventRepository).after(after, _REPLAY_PAGE, sorted(topics))
        upto = page[-1].seq if len(page) == _REPLAY_PAGE else max(head, after)
        return StoredEvents(tuple(StreamEntry(record) for record in page), upto, floor, head)

    @contextmanager
    def reader(self, transport: str) -> Iterator[EventReader]:
        """Opens a reader at the newest event without topics.

        Raises UnavailableError (overloaded) at the limit of readers.
        """
        if len(self._readers) >= self.max_readers:
            raise UnavailableError(
                Code.OVERLOADED,
                f"The limit of {self.max_readers} readers is reached.",
                retry_after_s=_RETRY_S,
            )
        reader = EventReader(
            self._recent,
            self.stored,
            self._quotes,
            self.metrics.stream_conflated_events.inc,
            self._live,
        )
        self._readers.add(reader)
        clients = self.metrics.stream_clients.labels(transport)
        clients.inc()
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            clients.dec()

    def wanted_symbols(self) -> frozenset[str]:
        """Returns the symbols with a subscribed quote."""
        return frozenset().union(*(reader.symbols for reader in self._readers))

    def publish_quotes(self, frames: Mapping[str, Frame]) -> None:
        """Publishes new quotes by symbol; only the newest of each is stored."""
        self._quotes.update(frames)
        for reader in self._readers:
            reader.notify_quotes(frames.keys())

    def has_live_reader(self, topic: LiveTopic) -> bool:
        """True while a reader is subscribed to a live topic."""
        return any(topic in reader.live for reader in self._readers)

    def publish_live(
        self, topic: LiveTopic, change: Frame, make_complete: Callable[[], Frame]
    ) -> None:
        """Publishes the next state of a live topic; see LiveState."""
        self._live_versions[topic] += 1
        self._live[topic] = LiveState(self._live_versions[topic], change, make_complete)
        for reader in self._readers:
            reader.notify_live(topic)

    def drop_live(self, topic: LiveTopic) -> None:
        """Drops the state of a live topic that has no readers, since it ages."""
        self._live.pop(topic, None)

    async def forget_old(self) -> int:
        """Deletes events past the replay period; returns their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            now = await current_time(unit, self.shared, self.clock)
            return await unit.get(EventRepository).forget(now - KEEP, MAX_STORED)


def _with_number(seq: int, events: Sequence[EventRecord]) -> EventRecord | None:
    """Returns the first event if it has that number, else None."""
    return events[0] if events and events[0].seq == seq else None


STEP_S: Final = 1.0


@dataclass(slots=True)
class QuoteFeed:
    """Compares quotes in memory with the last published ones; no I/O."""

    market: MarketData
    stream: EventStream
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _published: dict[str, Details] = field(default_factory=dict)

    async def run(self, beat: Callable[[], None]) -> None:
        while True:
            self.publish_changes()
            beat()
            await self.sleep(STEP_S)

    def publish_changes(self) -> None:
        """Publishes quotes that changed or became stale since the last call."""
        wanted = self.stream.wanted_symbols()
        if not (wanted or self._published):
            return
        self._published = {
            name: details for name, details in self._published.items() if name in wanted
        }
        moment = self.market.moment()
        frames: dict[str, Frame] = {}
        for name in sorted(wanted):
            view = _quote(name, moment)
            if view is None:
                continue
            details = ticker_details(view, self.market.source.value)
            if self._published.get(name) != details:
                frames[name] = ticker_frame(view, details)
                self._published[name] = details
        if frames:
            self.stream.publish_quotes(frames)


def _quote(name: str, moment: MarketMoment) -> QuoteView | None:
    entry = moment.known.index.find(name)
    if entry is None:
        return None  # delisted: the last quote keeps its time
    view = moment.quote(entry)
    return None if view.as_of is None else view
