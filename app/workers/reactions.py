"""Reactions to committed events: alerts, drift checks, stream readers and notifications."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Final

from app.alerts.services.delivery import NotificationDispatcher
from app.configuration.domain.events import ConfigurationChanged
from app.foundation.event_bus import Bus
from app.foundation.jobs import JobKind
from app.foundation.ports import Clock, Jobs
from app.market.domain.events import ModeChanged
from app.my_symbols import MySymbolsServiceV2
from app.operations.services.event_stream import QuoteFeed
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.events import PortfolioChanged
from app.scoring.domain.events import ScoresUpdated
from app.workers.schedule import UseCase
from app.workers.supervisor import Heartbeat, Supervisor, Work

ALERT_REACTIONS: Final = "alert_reactions"
_REST_S: Final = 0.5
# No rule asks for booked results or for the switch, and both may come several times a second.
_UNASKED: Final = frozenset({EventType.PERFORMANCE, EventType.SWITCH})
IDLE_S: Final = 10.0  # who hears nothing says so often that it listens


async def _rest() -> None:
    await asyncio.sleep(_REST_S)


def alert_reactions(
    bus: Bus,
    clock: Clock,
    look: UseCase,
    rest: Callable[[], Awaitable[object]] = _rest,
    idle_s: float = IDLE_S,
) -> Work:
    """A task that hears of scores, members, settings and mode; a look answers all before it.

    After a look it rests: a look costs as much as dozens of requests, and changes may come by the
    dozen too. The first is looked at right away, those of the rest together after it.
    """

    async def react(beat: Heartbeat) -> None:
        looked: datetime | None = None
        with bus.subscribe() as events:
            while True:
                happened = _time(await heard(events, beat, idle_s))
                # A look later than now was before the clock was set back: it answers nothing.
                if happened is None or (looked is not None and happened < looked <= clock()):
                    continue
                looked = clock()
                await look()
                beat()
                await rest()

    return react


async def heard(events: AsyncIterator[object], beat: Heartbeat, idle_s: float) -> object:
    """The next event; who waits for it gives a sign of life every `idle_s` seconds."""
    while True:
        try:
            async with asyncio.timeout(idle_s):
                return await anext(events)
        except TimeoutError:
            beat()


def _time(event: object) -> datetime | None:
    match event:
        case ScoresUpdated():
            return event.calculated_at
        case PortfolioChanged() if event.type in _UNASKED:
            return None
        case PortfolioChanged() | ConfigurationChanged() | ModeChanged():
            return event.occurred_at
        case _:
            return None


DRIFT_REACTIONS: Final = "drift_reactions"


def drift_reactions(
    bus: Bus, has_drifted: Callable[[], Awaitable[bool]], jobs: Jobs, idle_s: float = IDLE_S
) -> Work:
    """A task that hears of boards; where one calls for it, the check is a run named after its time.

    However many processes hear of a board, and however often, it has one run; a check that is
    under way already stands for it. A member that moves much brings about a board of its own.
    """

    async def react(beat: Heartbeat) -> None:
        kind = JobKind.REBALANCE_CHECK.value
        with bus.subscribe() as events:
            while True:
                event = await heard(events, beat, idle_s)
                if isinstance(event, ScoresUpdated) and await has_drifted():
                    at = event.calculated_at
                    name = f"{kind}:{at:%Y-%m-%dT%H:%M:%S.%fZ}:drift"
                    payload = {"scheduled_at": at.isoformat()}
                    await jobs.enqueue(kind, payload, run_id=name, key=kind)
                beat()

    return react


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
