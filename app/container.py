"""The composition root: the one place that knows how the program is put together."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from random import Random  # noqa: TID251  # chance enters the program here
from socket import gethostname

import structlog

from app.adapters.kucoin.exchange import open_exchange
from app.adapters.notify import People
from app.adapters.webhook import Webhook
from app.services.alert_facts import SystemView
from app.services.alert_rules import AlertRuleService
from app.services.alert_watch import AlertWatch
from app.services.alerts import AlertService
from app.services.bus import Bus
from app.services.changes import Ledger
from app.services.configuration import ConfigurationService
from app.services.controls import ControlService
from app.services.exchange_watch import ExchangeWatch
from app.services.grounds import GroundsNow
from app.services.in_force import SettingsInForce
from app.services.job_news import JobNews
from app.services.jobs import JobService
from app.services.market_data import MarketData
from app.services.metrics import MetricsService
from app.services.mode import ModeNow
from app.services.my_symbols import MySymbolsServiceV2
from app.services.notifications import Notifications, by_kind
from app.services.notifications_courier import Courier
from app.services.once import Once
from app.services.performance import Performance
from app.services.portfolio import PortfolioService
from app.services.ports import Exchange, Jobs
from app.services.proposals import Proposals
from app.services.rebalance_runs import RebalanceRuns
from app.services.rebalancing import Rebalancing
from app.services.registry import Registry, shipped_sectors
from app.services.replacement import Replacement
from app.services.replicas import Replicas
from app.services.report import Reporting
from app.services.reports import Reports
from app.services.safety import Safety
from app.services.sample_data import SampleData
from app.services.scoring import Scoring
from app.services.status_sources import StatusSources
from app.services.stream import EventStream
from app.services.trading import Trading
from app.settings import Settings
from app.storage import preparation
from app.storage.database import Database
from app.storage.job_store import job_store
from app.telemetry import observers
from app.telemetry.meter import Meter
from app.telemetry.metrics import Metrics
from app.workers.activities import activities
from app.workers.alert_reactions import ALERT_REACTIONS, alert_reactions
from app.workers.backoff import full_jitter
from app.workers.durable import EngineOptions, executor_of
from app.workers.engine import Engine
from app.workers.gauges import Gauges
from app.workers.runs import runs
from app.workers.schedule import begin, table
from app.workers.streaming import stream_events
from app.workers.supervisor import Supervisor
from app.workers.watchdog import Watchdog

_log = structlog.get_logger("service")


@dataclass(frozen=True, slots=True)
class Services:
    """What entry points may use; routes, commands and tests receive this and nothing else."""

    my_symbols: MySymbolsServiceV2
    bus: Bus
    supervisor: Supervisor
    mode: ModeNow


def utc_now() -> datetime:
    """The wall clock, in UTC."""
    return datetime.now(UTC)  # noqa: TID251  # the clock enters the program here


def new_id() -> str:
    return str(uuid.uuid4())  # noqa: TID251  # identity enters the program here


def code_version() -> str:
    """The version of the installed package; "unknown" where it runs without being installed."""
    try:
        return version("my-symbols")
    except PackageNotFoundError:
        return "unknown"


@asynccontextmanager
async def assemble(settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
    """Open everything in order, close everything in reverse, whatever happens.

    Raises DatabaseInUseError, DataSourceMismatchError and UnavailableError where the database
    cannot be used. An exchange that cannot be reached is no error here: the feed goes on trying.
    """
    dice = Random()  # noqa: S311  # jitter needs no secrecy
    in_force, meter, bus, watch = SettingsInForce(), Meter(metrics), Bus(), ExchangeWatch()
    count = observers.exchange_request(metrics)

    def publish(event: object) -> None:
        in_force.hear(event)
        meter.hear(event)
        bus.publish(event)
        stream.nudge()

    def requested(path: str, outcome: str, seconds: float) -> None:
        count(path, outcome, seconds)
        watch.requested(path, outcome, seconds)

    async with AsyncExitStack() as stack:
        database = Database(
            settings.database.options,
            time.monotonic,
            dice.random,
            publish,
            observers.slow_statement(metrics),
        )
        stream = EventStream(database, utc_now, metrics, in_force.read)
        await database.open()
        stack.push_async_callback(database.close)
        await preparation.prepare(settings.database.url)
        await database.claim(settings.kucoin.data_source)
        await in_force.load(database, utc_now())
        exchange = await stack.enter_async_context(
            open_exchange(
                base_url=settings.kucoin.base_url,
                source=settings.kucoin.data_source,
                now=utc_now,
                monotonic=time.monotonic,
                sleep=asyncio.sleep,
                dice=dice,
                limits=settings.kucoin.limits,
                on_request=requested,
                on_rejection=observers.rejected_record(metrics),
                on_answer=watch.answered,
            )
        )
        supervisor = Supervisor(
            utc_now,
            lambda: full_jitter(dice.uniform),
            lambda name: metrics.task_restarts.labels(name).inc(),
        )
        store = job_store(settings.database.url)
        stack.callback(store.close)
        executor_id = executor_of(store, f"{gethostname()}-{os.getpid()}-{new_id()}")
        options = EngineOptions(store, executor_id, poll_s=settings.jobs.poll_s)
        engine = Engine(options, observers.job_ended(metrics))
        service = compose(
            settings, metrics, database, exchange, in_force, supervisor, watch, stream, engine
        )
        await _recall(service)
        work = activities(service, AlertWatch(service.alerts, metrics), new_id)
        # Runs may use everything that was opened before; what asks for runs stops before them.
        await engine.open(runs(service, work))
        stack.push_async_callback(engine.close)
        metrics.service_info.labels(code_version(), settings.kucoin.data_source.value).set(1)
        # Tasks stop first on the way out: they use everything that was opened before.
        stack.push_async_callback(supervisor.stop)
        status = service.status
        mode = ModeNow(service.market.level, status.is_database_down, time.monotonic)
        gauges = Gauges(
            metrics, time.monotonic, database, exchange, bus, supervisor, mode, status.ready
        )
        supervisor.start("gauges", gauges.run)
        notifiers, rules = service.notifications.notifiers, lambda: in_force().notifications
        courier = Courier(database, utc_now, dice.random, notifiers, metrics, rules)
        stream_events(supervisor, service, courier, database.listen)
        if store.is_shared:
            replicas = Replicas(database, engine, executor_id, time.monotonic)
            supervisor.start("watchdog", Watchdog(replicas, metrics).run)
        if settings.background:
            ticks = table(lambda: in_force().cadences, work, engine, utc_now)
            begin(supervisor, ticks, work, time.monotonic)
            supervisor.start(ALERT_REACTIONS, alert_reactions(bus, utc_now, work.alerts))
        _log.info("started", data_source=settings.kucoin.data_source.value)
        yield Services(service, bus, supervisor, mode)


async def _recall(service: MySymbolsServiceV2) -> None:
    await service.registry.load()
    await service.scoring.load()
    await service.stream.open()


def compose(
    settings: Settings,
    metrics: Metrics,
    database: Database,
    exchange: Exchange,
    in_force: SettingsInForce,
    supervisor: Supervisor,
    watch: ExchangeWatch,
    stream: EventStream,
    jobs: Jobs,
) -> MySymbolsServiceV2:
    """The use cases over what was opened; nothing starts here."""

    async def held() -> tuple[str, ...]:
        async with database.read() as unit:
            portfolio = await unit.portfolio.load()
        return tuple(member.contract for member in portfolio.members)

    registry = Registry(
        exchange=exchange,
        database=database,
        sectors=shipped_sectors(),
        clock=utc_now,
        monotonic=time.monotonic,
        new_id=new_id,
        held=held,
    )
    market = MarketData(
        exchange=exchange,
        database=database,
        registry=registry,
        configuration=in_force,
        clock=utc_now,
        monotonic=time.monotonic,
        metrics=metrics,
        workers=settings.kucoin.concurrency,
    )
    once = Once(database, utc_now)
    scoring = Scoring(
        market=market,
        database=database,
        clock=utc_now,
        monotonic=time.monotonic,
        new_id=new_id,
        configuration=in_force,
        once=once,
    )
    grounds = GroundsNow(scoring, market, utc_now)
    local = settings.notifications.allow_private
    notifiers = by_kind([Webhook(lambda: int(utc_now().timestamp()), local), People(local)])
    ledger = Ledger(code_version())
    system = SystemView(exchange.link, watch, registry, market.server_clock, supervisor.facts)
    configuration = ConfigurationService(database, grounds, once, ledger)
    performance = Performance(database, grounds, once, ledger)
    reports = Reports(database, grounds, performance)
    portfolio = PortfolioService(database, grounds, once, ledger)
    runs = RebalanceRuns(database, utc_now, new_id, f"{gethostname()}:{os.getpid()}")
    rebalancing = Rebalancing(database, grounds, once, ledger, runs)

    sources = StatusSources(database, scoring, in_force, metrics)
    return MySymbolsServiceV2(
        registry=registry,
        market=market,
        scoring=scoring,
        portfolio=portfolio,
        rebalancing=rebalancing,
        replacement=Replacement(database, grounds, once, ledger, new_id),
        proposals=Proposals(database, utc_now, once, rebalancing, portfolio),
        performance=performance,
        reporting=Reporting(performance),
        metrics=MetricsService(database, grounds, reports),
        safety=Safety(database, grounds),
        trading=Trading(database, grounds),
        controls=ControlService(database, grounds, once, ledger),
        reports=reports,
        alerts=AlertService(database, grounds, once, new_id, system),
        alert_rules=AlertRuleService(configuration),
        configuration=configuration,
        status=sources.status(
            utc_now, code_version(), exchange.link, market.facts, supervisor.facts
        ),
        sample_data=SampleData(market, scoring),
        once=once,
        stream=stream,
        notifications=Notifications(database, utc_now, new_id, once, notifiers),
        jobs=JobService(jobs, utc_now, new_id, JobNews(database)),
    )
