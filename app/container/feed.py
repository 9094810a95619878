"""Wiring of the market feed: one leader reads the exchange, other processes follow it."""

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from app.configuration.services.current import CurrentSettings
from app.container.runtime_values import new_id, utc_now
from app.foundation.errors import ServiceError
from app.foundation.event_bus import Bus
from app.foundation.events import EventRecord, EventTopic
from app.foundation.processes import API, OrphanedRuns, ProcessRegistry
from app.foundation.sql.database import Database
from app.foundation.sql.processes import ProcessProfile
from app.market.services.contract_sync import SyncRequests
from app.market.services.feed_leader import LeaderLease, LeaseTimes
from app.market.services.ports import MarketStream
from app.market.services.reference_prices import ReferencePriceFeed
from app.market.services.sectors import SectorService
from app.market.services.service_mode import ModePublisher
from app.market.services.shared_market import FeedOwnership, MarketFollower, MarketPublisher
from app.market.services.stream_consumer import StreamConsumer
from app.my_symbols import MySymbolsServiceV2
from app.operations.domain.event_codec import try_decode_event
from app.operations.services.event_stream import EventStream
from app.portfolio.storage.portfolio import PortfolioRepository
from app.scoring.services.rescoring import Rescoring
from app.settings import ProcessRole, Settings
from app.workers.feed import FEED, FeedLeaderTask, Sharing
from app.workers.reactions import ALERT_REACTIONS, DRIFT_REACTIONS, SILENT_S
from app.workers.schedule import (
    EXCHANGE_SILENT_S,
    ScheduledTask,
    Tasks,
    start_feed_tasks,
    start_tasks,
)
from app.workers.supervisor import Heartbeat, Supervisor, Work

REFERENCE, REFERENCE_STREAM = "reference", "reference_stream"


@asynccontextmanager
async def reference_feed(
    settings: Settings,
    supervisor: Supervisor,
    service: MySymbolsServiceV2,
    is_owner: Callable[[], bool],
) -> AsyncIterator[None]:
    """Polls and streams the reference exchange while open; does nothing without one.

    Its tasks must be stopped before it closes.
    """
    options = settings.reference
    if options.exchange == "none" or not settings.run_background_tasks:
        yield
        return
    # Loading takes seconds: the package knows a hundred exchanges.
    extra = await asyncio.to_thread(importlib.import_module, "app.adapters.ccxt_extra")
    async with extra.open_reference(
        options.exchange, options.base_url, options.timeout_s, _now_ms, _bases(service)
    ) as source:
        references = ReferencePriceFeed(
            source, service.market.quality, is_owner, options.interval_s, options.exchange
        )
        limit_s = options.interval_s + EXCHANGE_SILENT_S
        supervisor.start(REFERENCE, references.run, lambda: limit_s)
        if source.streams and settings.feed.mode == "stream":
            supervisor.start(
                REFERENCE_STREAM,
                references.run_stream,
                lambda: options.interval_s + EXCHANGE_SILENT_S,
            )
        service.status.reference_report = references.report
        yield


def _bases(service: MySymbolsServiceV2) -> Callable[[], frozenset[str]]:
    """Returns a source of the base coins of the known contracts."""
    registry = service.market.registry
    return lambda: frozenset(entry.contract.base for entry in registry.index.entries)


def _now_ms() -> int:
    return round(utc_now().timestamp() * 1000)


_DECISIONS: Final = frozenset(
    {
        EventTopic.PORTFOLIO_CHANGE,
        EventTopic.CONFIGURATION,
        EventTopic.SCORING_RUN,
        EventTopic.SECURITY,
    }
)
_LIMITS: Final[Mapping[str, float]] = {
    ALERT_REACTIONS: SILENT_S,
    DRIFT_REACTIONS: SILENT_S,
    "mode": SILENT_S,
    "stream": SILENT_S,
    "stream_watch": EXCHANGE_SILENT_S,
    "stream_bars": EXCHANGE_SILENT_S,
    "rescoring": EXCHANGE_SILENT_S,
}
_START_LATER: Final = frozenset({"stream", "stream_watch"})  # after the first fill
Listen = Callable[[Callable[[], None], Heartbeat], Awaitable[None]]


def join_feed(
    feed: FeedOwnership,
    database: Database,
    service: MySymbolsServiceV2,
    holder: str,
    *,
    is_shared: bool,
) -> None:
    """Makes this process a candidate for the feed lease, and a follower if the database is shared.

    Without other processes the lease is never given up: that would only lose time.
    """
    unshared = LeaseTimes(ttl_s=15.0, renew_s=5.0, demote_s=float("inf"))
    times = LeaseTimes() if is_shared else unshared
    feed.lease = LeaderLease(database, holder, time.monotonic, times)
    service.market.metrics.leader_epoch.set_function(feed.own_epoch)
    if is_shared:
        feed.follower = MarketFollower(database, service.market, service.scoring, time.monotonic)


@dataclass(slots=True)
class FeedTasks:
    """Starts the leader election of this process and the tasks beside it."""

    role: ProcessRole
    database: Database
    service: MySymbolsServiceV2
    view: FeedOwnership
    supervisor: Supervisor
    ticks: tuple[ScheduledTask, ...]
    work: Tasks
    reactions: Mapping[str, Work]
    streamed: StreamConsumer | None = None  # None: the market is only polled
    _running: tuple[str, ...] = field(default=(), init=False)
    _mode: ModePublisher = field(
        init=False
    )  # one for all leaderships: it knows what is unpublished

    def __post_init__(self) -> None:
        self._mode = ModePublisher(
            self.database, self.service.status.mode.state, self.view.fence, utc_now, new_id
        )

    def start(self) -> FeedLeaderTask | None:
        """Starts the tasks; returns None without a lease: the process then only serves requests."""
        lease = self.view.lease
        if lease is None:
            return None
        leader_task = FeedLeaderTask(
            lease,
            time.monotonic,
            self._begin,
            self._end,
            self._sharing(lease),
            self._may_own,
        )
        self.supervisor.start(FEED, leader_task.run, lambda: SILENT_S)
        if self.role is not ProcessRole.API:
            shared = [tick for tick in self.ticks if tick.is_shared]
            start_tasks(self.supervisor, shared, time.monotonic)
        return leader_task

    def _sharing(self, lease: LeaderLease) -> Sharing | None:
        follower, service = self.view.follower, self.service
        if follower is None:
            return None
        publisher = MarketPublisher(
            self.database, service.market, service.scoring, lease, self.view.own_link,
            time.monotonic,
        )  # fmt: skip
        requests = SyncRequests(self.database, service.market, publisher, follower, new_id)
        service.market.remote_sync = requests.sync_contracts
        return Sharing(publisher, follower, requests)

    def _may_own(self) -> bool:
        if self.role is ProcessRole.API:
            return False
        registry = self.view.registry
        return registry is None or not registry.is_outdated()

    def _begin(self) -> None:
        names = start_feed_tasks(
            self.supervisor, self.ticks, self.work, time.monotonic, self.view.is_owner
        )
        own = {**self.reactions, "mode": self._mode.run, **self._streaming()}
        for name, work in own.items():
            limit_s = partial(_LIMITS.__getitem__, name)
            self.supervisor.start(name, work, limit_s, is_watchdog_enabled=name not in _START_LATER)
        self._running = (*names, *own)

    def _streaming(self) -> dict[str, Work]:
        """Returns the stream, its watch, its bars and the rescoring that it triggers."""
        streamed = self.streamed
        if streamed is None:
            return {}
        rescoring = Rescoring(
            streamed.data, member_symbols(self.database), self.service.scoring.latest,
            self.service.scoring.calculate,
        )  # fmt: skip
        return {
            "stream": streamed.run,
            "stream_watch": streamed.watch,
            "stream_bars": streamed.bars,
            "rescoring": rescoring.run,
        }

    async def _end(self) -> None:
        await self.supervisor.stop_tasks(*self._running)


def create_streamed_market(
    service: MySymbolsServiceV2, stream: MarketStream, in_force: CurrentSettings
) -> StreamConsumer:
    """Returns the streamed market; members, watched and best symbols get the closest updates."""

    async def closest() -> tuple[str, ...]:
        first = await service.controls.first_symbols()
        return (*first, *service.scoring.best(in_force().feed.candidates))

    streamed = StreamConsumer(service.market, stream, closest)
    service.status.stream_report = streamed.report
    return streamed


def member_symbols(database: Database) -> Callable[[], Awaitable[tuple[str, ...]]]:
    """Returns a reader of the standard symbols of the committed members."""

    async def members() -> tuple[str, ...]:
        async with database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
        return tuple(member.symbol for member in portfolio.members)

    return members


def create_process_registry(
    database: Database, orphaned_runs: OrphanedRuns, executor_id: str, profile: ProcessProfile
) -> ProcessRegistry:
    """Returns the registry; an API-only process takes no runs over, because it executes none."""
    return ProcessRegistry(
        database,
        orphaned_runs,
        executor_id,
        time.monotonic,
        profile=profile,
        takes_over=profile.role != API,
    )


def leave_registry(registry: ProcessRegistry | None) -> Callable[[], Awaitable[None]]:
    """Returns a callback that deletes the heartbeat; without a database it simply expires."""

    async def leave() -> None:
        if registry is None:
            return
        with suppress(ServiceError):
            await registry.leave()

    return leave


def connect_stream(
    stream: EventStream, in_force: CurrentSettings, bus: Bus, sectors: SectorService
) -> None:
    """Makes the event stream apply settings and sectors of all processes in this one.

    Both are read again where events may have been lost.
    """
    handle = create_event_handler(in_force, bus)

    def on_record(record: EventRecord) -> None:
        sectors.on_record(record)
        handle(record)

    async def reread() -> None:
        await in_force.reread(stream.database)
        await sectors.load()

    stream.on_record, stream.reread = on_record, reread


def create_event_handler(in_force: CurrentSettings, bus: Bus) -> Callable[[EventRecord], None]:
    """Returns a handler for committed events of all processes.

    It applies new settings in this process and publishes decisions on the bus, so that the feed
    leader evaluates alerts at once.
    """

    def handle(record: EventRecord) -> None:
        in_force.on_record(record)
        event = try_decode_event(record) if record.topic in _DECISIONS else None
        if event is not None:
            bus.publish(event)

    return handle


def with_leader_wakeup(listen: Listen, leader_task: FeedLeaderTask | None) -> Listen:
    """Returns `listen` with a hint that also wakes the leader task."""
    if leader_task is None:
        return listen

    async def listen_and_wake(hint: Callable[[], None], beat: Heartbeat) -> None:
        def wake_both() -> None:
            hint()
            leader_task.wake()

        await listen(wake_both, beat)

    return listen_and_wake
