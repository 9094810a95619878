"""Keeps events going out: the stream follows the store and listens, the courier tells people."""

from collections.abc import Awaitable, Callable

from app.services.my_symbols import MySymbolsServiceV2
from app.services.notifications_courier import Courier
from app.services.stream_quotes import QuoteFeed
from app.workers.supervisor import Beat, Supervisor

Listen = Callable[[Callable[[], None], Beat], Awaitable[None]]


def stream_events(
    supervisor: Supervisor, service: MySymbolsServiceV2, courier: Courier, listen: Listen
) -> None:
    """Start it all as supervised tasks; `listen` calls its first argument at each commit."""

    async def hints(beat: Beat) -> None:
        await listen(service.stream.nudge, beat)

    supervisor.start("events", service.stream.follow)
    supervisor.start("event_hints", hints)
    supervisor.start("quotes", QuoteFeed(service.market, service.stream).run)
    supervisor.start("notifications", courier.run)
