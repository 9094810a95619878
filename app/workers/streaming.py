"""Keeps events going out: over the stream to its readers, by the dispatcher to channels."""

from collections.abc import Awaitable, Callable
from typing import Final

from app.alerts.services.delivery import NotificationDispatcher
from app.my_symbols import MySymbolsServiceV2
from app.operations.services.quote_messages import QuoteFeed
from app.workers.supervisor import Heartbeat, Supervisor

SILENT_S: Final = 120.0  # each of them beats every ten seconds at least
BACKLOG_S: Final = 600.0  # a round makes notices of all that happened since the last one
Listen = Callable[[Callable[[], None], Heartbeat], Awaitable[None]]


def stream_events(
    supervisor: Supervisor,
    service: MySymbolsServiceV2,
    dispatcher: NotificationDispatcher,
    listen: Listen,
) -> None:
    """Start it all as supervised tasks; `listen` calls its first argument at each commit."""

    async def hints(beat: Heartbeat) -> None:
        await listen(service.stream.nudge, beat)

    supervisor.start("events", service.stream.follow, lambda: SILENT_S)
    supervisor.start("event_hints", hints, lambda: SILENT_S)
    supervisor.start("quotes", QuoteFeed(service.market, service.stream).run, lambda: SILENT_S)
    supervisor.start("notifications", dispatcher.run, lambda: BACKLOG_S)
