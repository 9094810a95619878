"""Opens the service and its background tasks in order, and closes them in reverse."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random  # noqa: TID251  # source of randomness of the program
from socket import gethostname
from typing import Final

import structlog

import app.container.tables  # noqa: F401 - declares every table
from app.adapters.kucoin.exchange import KucoinExchange, open_exchange
from app.adapters.kucoin.limiter import WHOLE, PoolShare
from app.alerts.services.delivery import NotificationDispatcher
from app.alerts.services.monitor import AlertScheduler
from app.configuration.services.current import CurrentSettings
from app.container.composition import compose, sealed_store
from app.container.feed import (
    FeedTasks,
    connect_stream,
    create_process_registry,
    create_streamed_market,
    join_feed,
    leave_registry,
    reference_feed,
    with_leader_wakeup,
)
from app.container.runtime_values import code_version, elapsed_s, full_version, new_id, utc_now
from app.foundation.backoff import full_jitter
from app.foundation.errors import Code, ConflictError
from app.foundation.event_bus import Bus
from app.foundation.http.certificate import ServerCertificate
from app.foundation.http.protocol import PREFIX
from app.foundation.metrics import Metrics
from app.foundation.principals import Access
from app.foundation.processes import ProcessRegistry
from app.foundation.sql.database import Database
from app.foundation.sql.job_store import JobStore, create_job_store
from app.foundation.sql.key_value import KeyValueRepository
from app.foundation.sql.processes import ProcessProfile
from app.market.services.health_facts import EndpointErrors
from app.market.services.service_mode import CurrentMode
from app.market.services.shared_market import FeedOwnership
from app.market.services.stream_consumer import StreamConsumer
from app.my_symbols import MySymbolsServiceV2
from app.operations.domain.event_codec import encode_event
from app.operations.services.event_stream import EventStream
from app.operations.services.gauges import GaugeReader
from app.operations.services.process_metrics import buffer_usage
from app.operations.services.service_figures import CachedFigure
from app.operations.services.state_version_source import LiveMarketParts, StateVersionSource
from app.operations.storage import startup_check
from app.performance.api.report_routes import report_document
from app.security.domain.addresses import is_loopback
from app.security.domain.audit import SYSTEM, SecurityEventKind
from app.security.services.count_exchange import CountExchange
from app.security.services.key_ring import OPEN_MODE, KeyRing
from app.security.services.peppers import UnsafeStartError
from app.security.services.rate_limiter import SharedWindowStorage
from app.settings import ProcessRole, Settings
from app.telemetry import observers
from app.telemetry.observers import Meter
from app.workers.activities import activities
from app.workers.durable import EngineOptions, executor_id_for
from app.workers.engine import Engine
from app.workers.gauges import Gauges
from app.workers.process_heartbeat import ProcessHeartbeat
from app.workers.reactions import (
    ALERT_REACTIONS,
    DRIFT_REACTIONS,
    SILENT_S,
    alert_reactions,
    drift_reactions,
    stream_events,
)
from app.workers.runs import create_runs
from app.workers.schedule import Tasks, create_schedule
from app.workers.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Background:
    """Starts the background tasks of this process; the supervisor stops them."""

    settings: Settings
    metrics: Metrics
    dice: Random
    bus: Bus
    in_force: CurrentSettings
    database: Database
    exchange: KucoinExchange
    supervisor: Supervisor
    engine: Engine
    feed: FeedOwnership
    service: MySymbolsServiceV2

    def start(self, work: Tasks) -> None:
        """Starts each task under the supervisor."""
        status, supervisor, metrics = self.service.status, self.supervisor, self.metrics
        gauges = Gauges(
            metrics, time.monotonic, self.database, self.feed, self.bus, supervisor, status.mode,
            status.observe,
        )  # fmt: skip
        gauges.watch_mode()
        supervisor.start("gauges", gauges.run, lambda: SILENT_S)
        service, server_clock = self.service, self.service.market.server_clock
        status.read_gauges = GaugeReader(
            metrics,
            status,
            service.alerts,
            server_clock,
            gauges.set_levels,
            CachedFigure(service.analytics.custom_figures),
            tuple(name for plugin in service.analytics.plugins for name in plugin.names),
            CachedFigure(service.decision_inputs.bytes_per_day),
        ).read
        supervisor.start_watchdog(lambda: self.database.is_unavailable)
        leader_task = self._feed_tasks(work).start()
        listen = with_leader_wakeup(self.database.listen, leader_task)
        stream_events(supervisor, self.service, self._dispatcher(), listen)
        if self.feed.registry is not None:
            process_heartbeat = ProcessHeartbeat(self.feed.registry, metrics)
            supervisor.start("process_heartbeat", process_heartbeat.run, lambda: SILENT_S)

    def _feed_tasks(self, work: Tasks) -> FeedTasks:
        has_drifted = self.service.rebalancing.has_drifted
        return FeedTasks(
            self.settings.role,
            self.database,
            self.service,
            self.feed,
            self.supervisor,
            create_schedule(
                lambda: self.in_force().intervals, work, self.engine, utc_now, elapsed_s
            ),
            work,
            {
                ALERT_REACTIONS: alert_reactions(self.bus, utc_now, work.alerts),
                DRIFT_REACTIONS: drift_reactions(self.bus, has_drifted, self.engine),
            },
            self._streamed_market(),
        )

    def _streamed_market(self) -> StreamConsumer | None:
        """Returns the streamed market; None if the market is only polled."""
        if self.settings.feed.mode == "poll":
            return None
        return create_streamed_market(self.service, self.exchange.stream(), self.in_force)

    def _dispatcher(self) -> NotificationDispatcher:
        public_url = self.settings.http.public_url
        return NotificationDispatcher(
            self.database,
            utc_now,
            self.dice.random,
            self.service.notifications.notifiers,
            self.metrics,
            self.in_force,
            self.service.status.notifications_delivered,
            shared=self.service.portfolio.idempotency.shared,
            api_url=None if public_url is None else public_url + PREFIX,
        )


_SECRET_BYTES: Final = 32
_SECRET_NAME: Final = "cursor_secret"  # noqa: S105  # the key of the stored value


async def cursor_secret(settings: Settings, database: Database) -> bytes:
    """Returns the configured secret; otherwise the one that the first process stored.

    Without configuration, a cursor is valid in every process and after a restart. A reader of the
    database could forge cursors, and nothing else.
    Raises UnavailableError.
    """
    configured = settings.http.cursor_secret
    if configured is not None:
        return configured.get_secret_value().encode()
    async with database.write() as unit:
        repository = unit.get(KeyValueRepository)
        secret = await repository.put_if_absent(_SECRET_NAME, secrets.token_hex(_SECRET_BYTES))
    return bytes.fromhex(secret)


SHARED_PART: Final = 0.8  # of the quota, for all known processes; the rest is a reserve


@dataclass(slots=True)
class SharedQuota:
    """Divides the exchange quota equally among the processes with recent heartbeats.

    `registry` is None on a database that cannot be shared: the process gets the whole quota.
    """

    registry: ProcessRegistry | None = None

    def __call__(self) -> PoolShare:
        if self.registry is None:
            return WHOLE
        return PoolShare(SHARED_PART / self.registry.count_exchange_clients(), SHARED_PART)


_log = structlog.get_logger("service")


@dataclass(frozen=True, slots=True)
class Services:
    """Assembled service; routes, commands and tests receive this and nothing else."""

    my_symbols: MySymbolsServiceV2
    bus: Bus
    supervisor: Supervisor
    mode: CurrentMode
    versions: StateVersionSource
    cursor_secret: bytes = field(repr=False)
    shared_windows: SharedWindowStorage | None  # None: no other process uses the database
    count_exchange: CountExchange | None  # likewise


@asynccontextmanager
async def assemble(
    settings: Settings, metrics: Metrics, certificate: ServerCertificate | None = None
) -> AsyncIterator[Services]:
    """Opens every part in order and closes them in reverse, also after a failure.

    Raises DatabaseInUseError, DataSourceMismatchError and UnavailableError if the database is
    unusable. An unreachable exchange is no error here: the feed keeps retrying.
    """
    dice = Random()  # noqa: S311  # jitter needs no secrecy
    in_force, meter, bus, watch = CurrentSettings(), Meter(metrics), Bus(), EndpointErrors()

    def publish(event: object) -> None:
        in_force.on_event(event)
        meter.on_event(event)
        bus.publish(event)
        stream.wake()

    async with AsyncExitStack() as stack:
        database = Database(
            settings.database_options,
            time.monotonic,
            dice.random,
            encode_event,
            publish,
            observers.slow_statement(metrics),
            observers.log_statement,
        )
        stream = EventStream(
            database,
            utc_now,
            metrics,
            max_readers=settings.limits.streams,
        )
        await _open_database(database, settings, in_force, stack)
        quota = SharedQuota()
        exchange = await stack.enter_async_context(_exchange(settings, metrics, dice, watch, quota))
        supervisor = Supervisor(
            utc_now,
            lambda: full_jitter(dice.random),
            lambda name: metrics.task_restarts.labels(name).inc(),
        )
        store = create_job_store(settings.database.url)
        stack.callback(store.close)
        options = _engine_options(settings, store)
        engine, executor_id = Engine(options, observers.job_ended(metrics)), options.executor_id
        profile = ProcessProfile(settings.role.value, full_version(), settings.digest)
        registry = (
            create_process_registry(database, engine, executor_id, profile)
            if store.is_shared
            else None
        )
        quota.registry = registry
        feed = FeedOwnership(exchange.link, registry=registry)
        service = compose(
            settings, metrics, database, exchange, in_force, supervisor, watch, stream, engine,
            feed, is_streamed=settings.run_background_tasks and settings.feed.mode == "stream",
        )  # fmt: skip
        service.market.quota_share = lambda: quota().own
        connect_stream(stream, in_force, bus, service.sectors)
        if settings.run_background_tasks:
            join_feed(feed, database, service, executor_id, is_shared=store.is_shared)
        await _load_state(service)
        # On the way out, after the tasks, the refusals of the running minute are stored.
        stack.push_async_callback(service.security_audit.store_counts)
        await open_keys(settings, service.keys.ring)
        await record_start(settings, service)
        status = service.status
        if certificate is not None:
            status.certificate_fault = lambda: certificate.fault
            supervisor.start("certificate", certificate.follow, lambda: SILENT_S)
        status.process.buffers = buffer_usage(bus, database)
        work = activities(
            service, AlertScheduler(service.alerts, metrics, status.alerts_evaluated), new_id
        )
        stack.push_async_callback(leave_registry(feed.registry))
        # Runs may use every part opened so far; tasks that enqueue runs stop before the engine.
        await engine.open(create_runs(service, work, report_document))
        stack.push_async_callback(engine.close)
        metrics.service_info.labels(code_version(), settings.kucoin.data_source.value).set(1)
        await stack.enter_async_context(
            reference_feed(settings, supervisor, service, feed.is_owner)
        )
        # On the way out, tasks stop first: they use every part opened before.
        stack.push_async_callback(supervisor.stop)
        # Not before the engine is open: it migrates its store on this loop, and would wait for ever
        # for a transaction that a task has open.
        process = executor_id if store.is_shared else None
        shared_limits = _start_security(service, supervisor, database, process)
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
            *shared_limits,
        )


def _start_security(
    service: MySymbolsServiceV2, supervisor: Supervisor, database: Database, process: str | None
) -> tuple[SharedWindowStorage, CountExchange] | tuple[None, None]:
    """Starts the tasks of security; returns the limits that processes share.

    `process` is the id of this one, None if no other process uses the database. Call it before
    `Database.listen`, which connects with all subscriptions.
    """
    supervisor.start("keys", service.keys.ring.follow, lambda: SILENT_S)
    supervisor.start("security_audit", service.security_audit.follow, lambda: SILENT_S)
    if process is None:
        return None, None
    exchange = CountExchange(database, process)
    exchange.open()
    supervisor.start("rate_limits", exchange.follow, lambda: SILENT_S)
    return SharedWindowStorage(database, utc_now), exchange


async def _open_database(
    database: Database, settings: Settings, in_force: CurrentSettings, stack: AsyncExitStack
) -> None:
    """Opens the database, checks it, and binds it to the data source of the exchange."""
    await database.open()
    stack.push_async_callback(database.close)
    await startup_check.prepare(settings.database.url)
    await database.bind_source(settings.kucoin.data_source)
    await sealed_store(settings, database).require_keys()
    await in_force.load(database, utc_now())


def _versions(service: MySymbolsServiceV2, database: Database) -> StateVersionSource:
    states, market = service.trading.contexts.memory, LiveMarketParts(service.market)
    mode = service.status.mode.state
    return StateVersionSource(database, states, market, service.scoring, utc_now, mode)


def _exchange(
    settings: Settings, metrics: Metrics, dice: Random, watch: EndpointErrors, quota: SharedQuota
) -> AbstractAsyncContextManager[KucoinExchange]:
    """Returns the exchange client, whose requests are counted and watched."""
    count = observers.exchange_request(metrics)

    def requested(path: str, outcome: str, seconds: float) -> None:
        count(path, outcome, seconds)
        watch.on_request(path, outcome, seconds)

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
        share=quota,
        on_answer=watch.on_answer,
    )


def _engine_options(settings: Settings, store: JobStore) -> EngineOptions:
    """Returns the engine options; an API-only process executes no runs."""
    executor_id = executor_id_for(store, f"{gethostname()}-{os.getpid()}-{new_id()}")
    works, poll_s = settings.role is not ProcessRole.API, settings.jobs.poll_s
    return EngineOptions(store, executor_id, works=works, poll_s=poll_s)


async def record_start(settings: Settings, service: MySymbolsServiceV2) -> None:
    """Records the start with the access mode as a security event. Raises UnavailableError."""
    access = Access.OPEN if service.keys.ring.is_open else Access.KEYS
    await service.security_audit.record(
        SecurityEventKind.SERVICE_STARTED,
        SYSTEM,
        code=access.value,
        payload={"role": settings.role.value, "version": full_version()},
    )


async def open_keys(settings: Settings, ring: KeyRing) -> None:
    """Reads the keys. Raises UnsafeStartError for an unsafe address or a weak pepper.

    Without a key and a user only callers on this machine are let in: no other address may be bound.
    """
    await ring.load()
    ring.peppers.known()
    if ring.is_open and not is_loopback(settings.http.host):
        raise UnsafeStartError(
            Code.UNAUTHENTICATED,
            f"{settings.http.host} is reachable from other machines, and there is no key or user;"
            " create one, then start again:\n  my-symbols keys create admin --role admin\n"
            f"  my-symbols serve --host {settings.http.host}",
        )
    if ring.is_open:
        _log.warning("open_mode", detail=OPEN_MODE)
    elif not ring.active_keys and not ring.people.active_users:
        _log.warning("no_active_key", detail="every caller is refused; create a key or a user")


async def _load_state(service: MySymbolsServiceV2) -> None:
    # Without a key, stored secrets stay unencrypted and no new ones are accepted.
    with suppress(ConflictError):
        await service.notifications.seal_stored()
    await service.sectors.load()
    await service.registry.load()
    await service.scoring.load()
    await service.stream.open()
