"""Opens the service with its background tasks in order, and closes it in reverse."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random  # noqa: TID251  # chance enters the program here
from socket import gethostname
from typing import Final

import structlog

import app.container.tables  # noqa: F401 - declares every table
from app.adapters.kucoin.exchange import KucoinExchange, open_exchange
from app.adapters.kucoin.limiter import WHOLE, PoolShare
from app.alerts.services.delivery import NotificationDispatcher
from app.alerts.services.monitor import AlertScheduler
from app.configuration.services.current import CurrentSettings
from app.container.composition import compose
from app.container.feed import (
    FeedTasks,
    farewell,
    heartbeat,
    hinted,
    join,
    overheard,
    referring,
    streamed_market,
)
from app.container.runtime_values import code_version, elapsed_s, full_version, new_id, utc_now
from app.foundation.backoff import full_jitter
from app.foundation.errors import ConflictError
from app.foundation.event_bus import Bus
from app.foundation.metrics import Metrics
from app.foundation.replicas import Replicas
from app.foundation.sql.database import Database
from app.foundation.sql.facts import FactRepository
from app.foundation.sql.job_store import JobStore, job_store
from app.foundation.sql.replicas import Makeup
from app.market.services.health_facts import ExchangeWatch
from app.market.services.service_mode import ModeNow
from app.market.services.shared_market import FeedView
from app.market.services.stream_consumer import StreamedMarket
from app.my_symbols import MySymbolsServiceV2
from app.operations.domain.event_codec import drafts_of
from app.operations.services.event_stream import EventStream
from app.operations.services.gauges import GaugeReader
from app.operations.services.process_metrics import buffer_usage
from app.operations.services.response_version import LiveMarketParts, StateVersionSource
from app.operations.storage import preparation
from app.performance.api.report_routes import report_document
from app.settings import Role, Settings
from app.telemetry import observers
from app.telemetry.observers import Meter
from app.workers.activities import activities
from app.workers.durable import EngineOptions, executor_of
from app.workers.engine import Engine
from app.workers.gauges import Gauges
from app.workers.reactions import (
    ALERT_REACTIONS,
    DRIFT_REACTIONS,
    SILENT_S,
    alert_reactions,
    drift_reactions,
    stream_events,
)
from app.workers.runs import runs
from app.workers.schedule import Tasks, table
from app.workers.supervisor import Supervisor
from app.workers.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Background:
    """Starts the tasks of this process; the supervisor ends them."""

    settings: Settings
    metrics: Metrics
    dice: Random
    bus: Bus
    in_force: CurrentSettings
    database: Database
    exchange: KucoinExchange
    supervisor: Supervisor
    engine: Engine
    feed: FeedView
    service: MySymbolsServiceV2

    def start(self, work: Tasks) -> None:
        """Each as a supervised task."""
        status, supervisor, metrics = self.service.status, self.supervisor, self.metrics
        gauges = Gauges(
            metrics, time.monotonic, self.database, self.feed, self.bus, supervisor, status.mode,
            status.observe,
        )  # fmt: skip
        gauges.watch_mode()
        supervisor.start("gauges", gauges.run, lambda: SILENT_S)
        service, server_clock = self.service, self.service.market.server_clock
        status.read_gauges = GaugeReader(
            metrics, status, service.alerts, server_clock, gauges.set_levels
        ).read
        supervisor.start_watchdog(lambda: self.database.is_away)
        duty = self._feed_tasks(work).start()
        stream_events(supervisor, self.service, self._courier(), hinted(self.database.listen, duty))
        if self.feed.replicas is not None:
            watchdog = Watchdog(self.feed.replicas, metrics)
            supervisor.start("watchdog", watchdog.run, lambda: SILENT_S)

    def _feed_tasks(self, work: Tasks) -> FeedTasks:
        has_drifted = self.service.rebalancing.has_drifted
        return FeedTasks(
            self.settings.role,
            self.database,
            self.service,
            self.feed,
            self.supervisor,
            table(lambda: self.in_force().intervals, work, self.engine, utc_now, elapsed_s),
            work,
            {
                ALERT_REACTIONS: alert_reactions(self.bus, utc_now, work.alerts),
                DRIFT_REACTIONS: drift_reactions(self.bus, has_drifted, self.engine),
            },
            self._streamed(),
        )

    def _streamed(self) -> StreamedMarket | None:
        """None where the market is only ever asked for."""
        if self.settings.feed.mode == "poll":
            return None
        return streamed_market(self.service, self.exchange.stream(), self.in_force)

    def _courier(self) -> NotificationDispatcher:
        return NotificationDispatcher(
            self.database,
            utc_now,
            self.dice.random,
            self.service.notifications.notifiers,
            self.metrics,
            lambda: self.in_force().notifications,
            self.service.status.notifications_delivered,
            shared=self.service.portfolio.idempotency.shared,
        )


_BYTES: Final = 32
_FACT: Final = "cursor_secret"


async def cursor_secret(settings: Settings, database: Database) -> bytes:
    """Secret of the settings; else the one that the first process stored in the database.

    So a cursor is valid in every process, also after a restart, without configuration. A reader of
    the database could forge cursors, and nothing else.
    Raises UnavailableError.
    """
    given = settings.http.cursor_secret
    if given is not None:
        return given.get_secret_value().encode()
    async with database.write() as unit:
        secret = await unit.get(FactRepository).keep(_FACT, secrets.token_hex(_BYTES))
    return bytes.fromhex(secret)


TOGETHER: Final = 0.8  # of the quota, for all of them; the rest is left for a process not heard of


@dataclass(slots=True)
class SharedQuota:
    """Equal parts for those that were heard of lately, by the heartbeats in the database.

    A single process on a database that cannot be shared gets the whole quota; there
    `replicas` is None.
    """

    replicas: Replicas | None = None

    def __call__(self) -> PoolShare:
        if self.replicas is None:
            return WHOLE
        return PoolShare(TOGETHER / self.replicas.asking(), TOGETHER)


_log = structlog.get_logger("service")


@dataclass(frozen=True, slots=True)
class Services:
    """Assembled service; routes, commands and tests receive this and nothing else."""

    my_symbols: MySymbolsServiceV2
    bus: Bus
    supervisor: Supervisor
    mode: ModeNow
    versions: StateVersionSource
    cursor_secret: bytes


@asynccontextmanager
async def assemble(settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
    """Open everything in order, close everything in reverse, whatever happens.

    Raises DatabaseInUseError, DataSourceMismatchError and UnavailableError where the database
    cannot be used. An exchange that cannot be reached is no error here: the feed goes on trying.
    """
    dice = Random()  # noqa: S311  # jitter needs no secrecy
    in_force, meter, bus, watch = CurrentSettings(), Meter(metrics), Bus(), ExchangeWatch()

    def publish(event: object) -> None:
        in_force.hear(event)
        meter.hear(event)
        bus.publish(event)
        stream.nudge()

    async with AsyncExitStack() as stack:
        database = Database(
            settings.database.options,
            time.monotonic,
            dice.random,
            drafts_of,
            publish,
            observers.slow_statement(metrics),
        )
        stream = EventStream(
            database,
            utc_now,
            metrics,
            overheard(in_force, bus),
            reread=lambda: in_force.reread(database),
        )
        await _open_database(database, settings, in_force, stack)
        share = SharedQuota()
        exchange = await stack.enter_async_context(_exchange(settings, metrics, dice, watch, share))
        supervisor = Supervisor(
            utc_now,
            lambda: full_jitter(dice.random),
            lambda name: metrics.task_restarts.labels(name).inc(),
        )
        store = job_store(settings.database.url)
        stack.callback(store.close)
        options = _engine_options(settings, store)
        engine, executor_id = Engine(options, observers.job_ended(metrics)), options.executor_id
        makeup = Makeup(settings.role.value, full_version(), settings.digest)
        replicas = heartbeat(database, engine, executor_id, makeup) if store.is_shared else None
        share.replicas = replicas
        feed = FeedView(exchange.link, replicas=replicas)
        service = compose(
            settings, metrics, database, exchange, in_force, supervisor, watch, stream, engine,
            feed, is_streamed=settings.run_background_tasks and settings.feed.mode == "stream",
        )  # fmt: skip
        service.market.quota_share = lambda: share().own
        if settings.run_background_tasks:
            join(feed, database, service, executor_id, is_shared=store.is_shared)
        await _recall(service)
        status = service.status
        status.process.buffers = buffer_usage(bus, database)
        work = activities(
            service, AlertScheduler(service.alerts, metrics, status.alerts_evaluated), new_id
        )
        stack.push_async_callback(farewell(feed.replicas))
        # Runs may use everything that was opened before; what asks for runs stops before them.
        await engine.open(runs(service, work, report_document))
        stack.push_async_callback(engine.close)
        metrics.service_info.labels(code_version(), settings.kucoin.data_source.value).set(1)
        await stack.enter_async_context(referring(settings, supervisor, service, feed.is_owner))
        # Tasks stop first on the way out: they use everything that was opened before.
        stack.push_async_callback(supervisor.stop)
        background = Background(
            settings=settings,
            metrics=metrics,
            dice=dice,
            bus=bus,
            in_force=in_force,
            database=database,
            exchange=exchange,
            supervisor=supervisor,
            engine=engine,
            feed=feed,
            service=service,
        )
        background.start(work)
        _log.info("started", data_source=settings.kucoin.data_source.value, role=settings.role)
        yield Services(
            service,
            bus,
            supervisor,
            status.mode,
            _versions(service, database),
            await cursor_secret(settings, database),
        )


async def _open_database(
    database: Database, settings: Settings, in_force: CurrentSettings, stack: AsyncExitStack
) -> None:
    """From here on the database is ours to use, and of the kind that the exchange is."""
    await database.open()
    stack.push_async_callback(database.close)
    await preparation.prepare(settings.database.url)
    await database.claim(settings.kucoin.data_source)
    await in_force.load(database, utc_now())


def _versions(service: MySymbolsServiceV2, database: Database) -> StateVersionSource:
    states, market = service.trading.contexts.memory, LiveMarketParts(service.market)
    mode = service.status.mode.state
    return StateVersionSource(database, states, market, service.scoring, utc_now, mode)


def _exchange(
    settings: Settings, metrics: Metrics, dice: Random, watch: ExchangeWatch, share: SharedQuota
) -> AbstractAsyncContextManager[KucoinExchange]:
    """The exchange, whose answers are counted and watched."""
    count = observers.exchange_request(metrics)

    def requested(path: str, outcome: str, seconds: float) -> None:
        count(path, outcome, seconds)
        watch.requested(path, outcome, seconds)

    return open_exchange(
        base_url=settings.kucoin.base_url,
        source=settings.kucoin.data_source,
        now=utc_now,
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        dice=dice,
        limits=settings.kucoin.limits,
        on_request=requested,
        on_rejection=observers.rejected_record(metrics),
        share=share,
        on_answer=watch.answered,
    )


def _engine_options(settings: Settings, store: JobStore) -> EngineOptions:
    """Engine options; a process that only answers HTTP requests runs and executes none."""
    executor_id = executor_of(store, f"{gethostname()}-{os.getpid()}-{new_id()}")
    works, poll_s = settings.role is not Role.API, settings.jobs.poll_s
    return EngineOptions(store, executor_id, works=works, poll_s=poll_s)


async def _recall(service: MySymbolsServiceV2) -> None:
    with suppress(ConflictError):  # no key: what is stored bare stays so, and nothing comes to it
        await service.notifications.seal_stored()
    await service.registry.load()
    await service.scoring.load()
    await service.stream.open()
