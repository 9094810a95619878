"""Keeps the stream of events running: follows the store, listens for hints, passes quotes on."""

from collections.abc import Awaitable, Callable

from app.services.stream import EventStream
from app.services.stream_quotes import QuoteFeed
from app.workers.supervisor import Beat, Supervisor

Listen = Callable[[Callable[[], None], Beat], Awaitable[None]]


def stream_events(
    supervisor: Supervisor, stream: EventStream, quotes: QuoteFeed, listen: Listen
) -> None:
    """Start it all as supervised tasks; `listen` calls its first argument at each commit."""

    async def hints(beat: Beat) -> None:
        await listen(stream.nudge, beat)

    supervisor.start("events", stream.follow)
    supervisor.start("event_hints", hints)
    supervisor.start("quotes", quotes.run)
