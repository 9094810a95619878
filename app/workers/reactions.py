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
from app.market.domain.events import ModeChanged, SectorsChanged
from app.my_symbols import MySymbolsServiceV2
from app.operations.services.event_stream import QuoteFeed
from app.operations.services.live_feeds import DashboardFeed, TickerFeed
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.events import PortfolioChanged
from app.scoring.domain.events import ScoresUpdated
from app.security.domain.events import AuthenticationBurst
from app.workers.schedule import UseCase
from app.workers.supervisor import Heartbeat, Supervisor, Work

ALERT_REACTIONS: Final = "alert_reactions"
_PAUSE_S: Final = 0.5
# No alert rule depends on booked results or the switch; both may change several times a second.
_IGNORED: Final = frozenset({EventType.PERFORMANCE, EventType.SWITCH})
IDLE_S: Final = 10.0  # interval of heartbeats without events


async def _pause() -> None:
    await asyncio.sleep(_PAUSE_S)


def alert_reactions(
    bus: Bus,
    clock: Clock,
    evaluate: UseCase,
    pause: Callable[[], Awaitable[object]] = _pause,
    idle_s: float = IDLE_S,
) -> Work:
    """Returns a task that evaluates alerts after changes of scores, members, settings or
    mode, and after bursts of failed authentications.

    One evaluation covers all earlier events. A pause follows it: an evaluation costs as much as
    dozens of requests, and changes may come by the dozen. The first event is handled at once,
    those of the pause together after it.
    """

    async def react(beat: Heartbeat) -> None:
        evaluated_at: datetime | None = None
        with bus.subscribe() as events:
            while True:
                occurred_at = _time(await next_event(events, beat, idle_s))
                # An evaluation later than now happened before the clock was set back: it is void.
                if occurred_at is None or (
                    evaluated_at is not None and occurred_at < evaluated_at <= clock()
                ):
                    continue
                evaluated_at = clock()
                await evaluate()
                beat()
                await pause()

    return react


async def next_event(events: AsyncIterator[object], beat: Heartbeat, idle_s: float) -> object:
    """Returns the next event; sends a heartbeat every `idle_s` seconds of waiting."""
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
        case PortfolioChanged() if event.type in _IGNORED:
            return None
        case (
            PortfolioChanged()
            | ConfigurationChanged()
            | SectorsChanged()
            | ModeChanged()
            | AuthenticationBurst()
        ):
            return event.occurred_at
        case _:
            return None


DRIFT_REACTIONS: Final = "drift_reactions"


def drift_reactions(
    bus: Bus, has_drifted: Callable[[], Awaitable[bool]], jobs: Jobs, idle_s: float = IDLE_S
) -> Work:
    """Returns a task that enqueues a rebalance check for a board whose weights have drifted.

    The run is named after the time of the board, so that a board has one run in all processes; a
    running check counts for it. A large price move causes a board of its own.
    """

    async def react(beat: Heartbeat) -> None:
        kind = JobKind.REBALANCE_CHECK.value
        with bus.subscribe() as events:
            while True:
                event = await next_event(events, beat, idle_s)
                if isinstance(event, ScoresUpdated) and await has_drifted():
                    at = event.calculated_at
                    name = f"{kind}:{at:%Y-%m-%dT%H:%M:%S.%fZ}:drift"
                    payload = {"scheduled_at": at.isoformat()}
                    await jobs.enqueue(kind, payload, run_id=name, key=kind)
                beat()

    return react


SILENT_S: Final = 120.0  # each of these tasks sends a heartbeat at least every ten seconds
BACKLOG_S: Final = 600.0  # one round makes notifications of all events since the last round
Listen = Callable[[Callable[[], None], Heartbeat], Awaitable[None]]


def stream_events(
    supervisor: Supervisor,
    service: MySymbolsServiceV2,
    dispatcher: NotificationDispatcher,
    listen: Listen,
) -> None:
    """Starts stream, quotes, live topics and delivery.

    `listen` calls its first argument at each commit.
    """

    async def hints(beat: Heartbeat) -> None:
        await listen(service.stream.wake, beat)

    supervisor.start("events", service.stream.follow, lambda: SILENT_S)
    supervisor.start("event_hints", hints, lambda: SILENT_S)
    supervisor.start("quotes", QuoteFeed(service.market, service.stream).run, lambda: SILENT_S)
    supervisor.start("tickers", TickerFeed(service.market, service.stream).run, lambda: SILENT_S)
    dashboards = DashboardFeed(service.dashboard.read, service.stream)
    supervisor.start("dashboard", dashboards.run, lambda: SILENT_S)
    supervisor.start("notifications", dispatcher.run, lambda: BACKLOG_S)
