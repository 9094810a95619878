"""Wiring of the market feed: one process reads the exchange, the others follow it."""

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
from app.foundation.events import EventRecord, Topic
from app.foundation.replicas import API, Orphans, Replicas
from app.foundation.sql.database import Database
from app.foundation.sql.replicas import Makeup
from app.market.services.contract_sync import SyncRequests
from app.market.services.feed_leader import FeedLease, LeaseTimes
from app.market.services.ports import MarketStream
from app.market.services.reference_prices import References
from app.market.services.service_mode import ModeWatch
from app.market.services.shared_market import FeedView, MarketFollower, MarketPublisher
from app.market.services.stream_consumer import StreamedMarket
from app.my_symbols import MySymbolsServiceV2
from app.operations.domain.event_codec import understood
from app.portfolio.storage.portfolio import PortfolioRepository
from app.scoring.services.rescoring import Rescoring
from app.settings import Role, Settings
from app.workers.feed import FEED, FeedDuty, Sharing
from app.workers.reactions import ALERT_REACTIONS, DRIFT_REACTIONS, SILENT_S
from app.workers.schedule import ASKING_S, ScheduledTask, Tasks, begin, begin_feed
from app.workers.supervisor import Heartbeat, Supervisor, Work

REFERENCE, REFERENCE_STREAM = "reference", "reference_stream"


@asynccontextmanager
async def referring(
    settings: Settings,
    supervisor: Supervisor,
    service: MySymbolsServiceV2,
    is_owner: Callable[[], bool],
) -> AsyncIterator[None]:
    """Asks and hears the second source while this is open; without one there is nothing to do.

    The tasks must be stopped before it closes.
    """
    wanted = settings.reference
    if wanted.exchange == "none" or not settings.run_background_tasks:
        yield
        return
    # It takes seconds to load and knows a hundred exchanges.
    extra = await asyncio.to_thread(importlib.import_module, "app.adapters.ccxt_extra")
    async with extra.open_reference(
        wanted.exchange, wanted.base_url, wanted.timeout_s, _now_ms, _bases(service)
    ) as source:
        asked = References(
            source, service.market.quality, is_owner, wanted.interval_s, wanted.exchange
        )
        supervisor.start(REFERENCE, asked.run, lambda: wanted.interval_s + ASKING_S)
        if source.streams and settings.feed.mode == "stream":
            supervisor.start(REFERENCE_STREAM, asked.hear, lambda: wanted.interval_s + ASKING_S)
        service.status.reference_report = asked.report
        yield


def _bases(service: MySymbolsServiceV2) -> Callable[[], frozenset[str]]:
    """Coins of the contracts that are known at present."""
    registry = service.market.registry
    return lambda: frozenset(entry.contract.base for entry in registry.index.entries)


def _now_ms() -> int:
    return round(utc_now().timestamp() * 1000)


_DECISIONS: Final = frozenset({Topic.PORTFOLIO_CHANGE, Topic.CONFIGURATION, Topic.SCORING_RUN})
_LIMITS: Final[Mapping[str, float]] = {
    ALERT_REACTIONS: SILENT_S,
    DRIFT_REACTIONS: SILENT_S,
    "mode": SILENT_S,
    "stream": SILENT_S,
    "stream_watch": ASKING_S,
    "stream_bars": ASKING_S,
    "rescoring": ASKING_S,
}
_WAITING: Final = frozenset({"stream", "stream_watch"})  # for the exchange, for the first fill
Listen = Callable[[Callable[[], None], Heartbeat], Awaitable[None]]


def join(
    feed: FeedView,
    database: Database,
    service: MySymbolsServiceV2,
    holder: str,
    *,
    is_shared: bool,
) -> None:
    """Makes the market that of the process with the lease.

    Where no other process can use the database, nothing is gained by giving it up in a slow moment.
    """
    alone = LeaseTimes(ttl_s=15.0, renew_s=5.0, demote_s=float("inf"))
    times = LeaseTimes() if is_shared else alone
    feed.lease = FeedLease(database, holder, time.monotonic, times)
    service.market.metrics.leader_epoch.set_function(feed.own_epoch)
    if is_shared:
        feed.follower = MarketFollower(database, service.market, service.scoring, time.monotonic)


@dataclass(slots=True)
class FeedTasks:
    """Starts the duty of this process and what it does beside it."""

    role: Role
    database: Database
    service: MySymbolsServiceV2
    view: FeedView
    supervisor: Supervisor
    ticks: tuple[ScheduledTask, ...]
    work: Tasks
    reactions: Mapping[str, Work]
    streamed: StreamedMarket | None = None  # None: the market is only ever asked for
    _running: tuple[str, ...] = field(default=(), init=False)
    _mode: ModeWatch = field(init=False)  # one for all times of owning: it knows what is untold

    def __post_init__(self) -> None:
        self._mode = ModeWatch(
            self.database, self.service.status.mode.state, self.view.fence, utc_now, new_id
        )

    def start(self) -> FeedDuty | None:
        """None where no background tasks run: then this process acts on requests alone."""
        lease = self.view.lease
        if lease is None:
            return None
        duty = FeedDuty(
            lease,
            time.monotonic,
            self._begin,
            self._end,
            self._sharing(lease),
            self._may_own,
        )
        self.supervisor.start(FEED, duty.run, lambda: SILENT_S)
        if self.role is not Role.API:
            shared = [tick for tick in self.ticks if tick.is_shared]
            begin(self.supervisor, shared, time.monotonic)
        return duty

    def _sharing(self, lease: FeedLease) -> Sharing | None:
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
        if self.role is Role.API:
            return False
        replicas = self.view.replicas
        return replicas is None or not replicas.is_outdated()

    def _begin(self) -> None:
        names = begin_feed(
            self.supervisor, self.ticks, self.work, time.monotonic, self.view.is_owner
        )
        own = {**self.reactions, "mode": self._mode.run, **self._streaming()}
        for name, work in own.items():
            limit_s = partial(_LIMITS.__getitem__, name)
            self.supervisor.start(name, work, limit_s, is_watchdog_enabled=name not in _WAITING)
        self._running = (*names, *own)

    def _streaming(self) -> dict[str, Work]:
        """The stream itself, the watch beside it, and what it brings about."""
        streamed = self.streamed
        if streamed is None:
            return {}
        moved = Rescoring(
            streamed.data, members_of(self.database), self.service.scoring.latest,
            self.service.scoring.calculate,
        )  # fmt: skip
        return {
            "stream": streamed.run,
            "stream_watch": streamed.watch,
            "stream_bars": streamed.bars,
            "rescoring": moved.run,
        }

    async def _end(self) -> None:
        await self.supervisor.end(*self._running)


def streamed_market(
    service: MySymbolsServiceV2, stream: MarketStream, in_force: CurrentSettings
) -> StreamedMarket:
    """Streamed market; members, watched and best symbols get the closest updates."""

    async def closest() -> tuple[str, ...]:
        first = await service.controls.first_symbols()
        return (*first, *service.scoring.best(in_force().feed.candidates))

    streamed = StreamedMarket(service.market, stream, closest)
    service.status.stream_report = streamed.report
    return streamed


def members_of(database: Database) -> Callable[[], Awaitable[tuple[str, ...]]]:
    """The standard symbols of the members, as committed."""

    async def members() -> tuple[str, ...]:
        async with database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
        return tuple(member.symbol for member in portfolio.members)

    return members


def heartbeat(database: Database, orphans: Orphans, executor_id: str, makeup: Makeup) -> Replicas:
    """Only who carries out runs judges who else is dead: the runs would come to it."""
    return Replicas(
        database, orphans, executor_id, time.monotonic, makeup=makeup, judges=makeup.role != API
    )


def farewell(replicas: Replicas | None) -> Callable[[], Awaitable[None]]:
    """Leaves the list of those alive; without the database others find out by themselves."""

    async def leave() -> None:
        if replicas is None:
            return
        with suppress(ServiceError):
            await replicas.leave()

    return leave


def overheard(in_force: CurrentSettings, bus: Bus) -> Callable[[EventRecord], None]:
    """Commits of any process: settings come into force here too, and the owner of the feed
    looks at the alerts as soon as another has decided something.
    """

    def heard(record: EventRecord) -> None:
        in_force.read(record)
        event = understood(record) if record.topic in _DECISIONS else None
        if event is not None:
            bus.publish(event)

    return heard


def hinted(listen: Listen, duty: FeedDuty | None) -> Listen:
    """`listen`, which also wakes the duty."""
    if duty is None:
        return listen

    async def both(hint: Callable[[], None], beat: Heartbeat) -> None:
        def heard() -> None:
            hint()
            duty.nudge()

        await listen(heard, beat)

    return both
