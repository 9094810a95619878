"""Follows the committed events of all processes and wakes the stream readers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from app.foundation.clock import SharedClock, agreed
from app.foundation.errors import Code, UnavailableError
from app.foundation.events import EventRecord, Topic
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock
from app.foundation.sql.database import BULK_STATEMENT_S, CommitMark, Database
from app.foundation.sql.events import EventRepository
from app.operations.services.event_messages import Frame
from app.operations.services.event_subscription import (
    EventReader,
    RecentEvents,
    StoredEvents,
    StreamEntry,
)

MAX_READERS: Final = 1_000
RECENT: Final = 4_096  # events in memory, shared by all readers
POLL_S: Final = 1.0  # guaranteed interval; a hint shortens it
KEEP: Final = timedelta(hours=24)
MOST: Final = 500_000  # stored events of any age
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
    `heard` gets every event. A failover that lost the last commits is detected: every reader gets
    a gap. `reread` runs then and at each start of following, since a lost connection may have
    lost notifications.
    """

    database: Database
    clock: Clock
    metrics: Metrics
    heard: Callable[[EventRecord], None] = lambda _: None
    reread: Callable[[], Awaitable[None]] = no_reread
    max_readers: int = MAX_READERS
    shared: SharedClock | None = None  # None: this process is the only one
    _recent: RecentEvents = field(default_factory=lambda: RecentEvents(RECENT))
    _readers: set[EventReader] = field(default_factory=set)
    _quotes: dict[str, Frame] = field(default_factory=dict)
    _hint: asyncio.Event = field(default_factory=asyncio.Event)
    _mark: CommitMark = field(default_factory=CommitMark, init=False)

    async def open(self) -> None:
        """Start at the newest event; older ones are read from the database on demand."""
        async with self.database.read() as unit:
            head = await unit.get(EventRepository).head()
            newest = await unit.get(EventRepository).after(head - 1, 1)
        self._recent.begin(head, _with(head, newest))

    def nudge(self) -> None:
        """Poll now: there may be new events."""
        self._hint.set()

    async def follow(self, beat: Callable[[], None]) -> None:
        """Follow committed events until cancelled. Raises UnavailableError; call it again then."""
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
        """Publish everything committed so far to the readers."""
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
                await self._begin_anew()
            if is_lost or not page:
                self._mark.move(commits)
                return
            # A concurrent call may have read them already.
            since = self._recent.head
            new = [record for record in page if record.seq > self._recent.head]
            self._recent.extend(StreamEntry(record) for record in new)
            for record in new:
                self.heard(record)
            topics = frozenset(record.topic for record in new)
            for reader in self._readers:
                reader.notify(topics, since)
            if len(page) < _PAGE - 1:
                self._mark.move(commits)
                return

    async def _begin_anew(self) -> None:
        """Reset the readers after the database lost the last events."""
        await self.reread()
        page = await self.stored(0, frozenset())
        _log.error("events_went_back", known=self._recent.head, stored=page.head)
        async with self.database.read() as unit:
            newest = await unit.get(EventRepository).after(page.head - 1, 1)
        self._recent.begin(page.head, _with(page.head, newest))
        for reader in self._readers:
            reader.begin_anew(page)

    @property
    def head(self) -> int:
        """Newest sequence number in memory."""
        return self._recent.head

    async def stored(self, after: int, topics: frozenset[Topic]) -> StoredEvents:
        """Page from the database for a reader behind the buffer in memory."""
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
        """Open a reader at the newest event without topics.

        Raises UnavailableError (overloaded) at the limit of readers.
        """
        if len(self._readers) >= self.max_readers:
            raise UnavailableError(
                Code.OVERLOADED,
                f"{self.max_readers} readers are served already.",
                retry_after_s=_RETRY_S,
            )
        reader = EventReader(
            self._recent, self.stored, self._quotes, self.metrics.stream_conflated_events.inc
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
        """Symbols with a subscribed quote."""
        return frozenset().union(*(reader.symbols for reader in self._readers))

    def quote(self, frames: Mapping[str, Frame]) -> None:
        """Publish new quotes by symbol; only the newest of each is stored."""
        self._quotes.update(frames)
        for reader in self._readers:
            reader.quoted(frames.keys())

    async def forget_old(self) -> int:
        """Delete events past the replay period; return their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            now = await agreed(unit, self.shared, self.clock)
            return await unit.get(EventRepository).forget(now - KEEP, MOST)


def _with(seq: int, found: Sequence[EventRecord]) -> EventRecord | None:
    """First event if it has that number, else None."""
    return found[0] if found and found[0].seq == seq else None
