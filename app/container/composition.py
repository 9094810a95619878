"""The use cases, put together over what was opened; nothing starts here."""

import os
from datetime import datetime, timedelta
from socket import gethostname
from typing import Final

from app.adapters.notifications.egress import Egress
from app.adapters.notifications.senders import TIMEOUT_S, PeopleNotifier, WebhookNotifier
from app.adapters.vault import FernetCipher
from app.alerts.services.facts import SystemView
from app.alerts.services.notifications import (
    ChannelSecrets,
    DecryptingNotifier,
    NotificationService,
    Notifiers,
    by_kind,
)
from app.alerts.services.service import AlertRuleService, AlertService
from app.configuration.services.current import CurrentSettings
from app.container import plugins
from app.container.runtime_values import RuntimeValues, code_version, elapsed_s
from app.foundation.clock import shared_by
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.job_service import JobNews, JobService
from app.foundation.metrics import Metrics
from app.foundation.ports import Jobs
from app.foundation.sql.database import Database
from app.foundation.sql.job_store import key_file
from app.market.services.health_facts import ExchangeWatch
from app.market.services.ports import Exchange
from app.market.services.quality import QualityService
from app.market.services.service import BOOKS_PER_S, WHOLE_QUOTA, MarketData
from app.market.services.service_mode import mode_over
from app.market.services.shared_market import FeedView
from app.market.services.symbol_registry import Registry, shipped_sectors
from app.my_symbols import MySymbolsServiceV2
from app.operations.services.configuration import ConfigurationService
from app.operations.services.event_stream import EventStream
from app.operations.services.health import StatusSources
from app.operations.services.integrity import IntegrityService
from app.operations.services.retention import Retention, find_decided_boards
from app.operations.services.sample_data import SampleData
from app.performance.services.analytics import MetricsService, PerformanceAnalytics
from app.performance.services.equity_reader import with_equity_index
from app.performance.services.report import ReportService
from app.performance.services.service import Performance, ValuationSnapshots
from app.portfolio.domain.proposals import ProposalKind
from app.portfolio.services.change_recorder import ChangeRecorder
from app.portfolio.services.controls import ControlService
from app.portfolio.services.decision_context import DecisionContextFactory, ElapsedTime, Refusals
from app.portfolio.services.membership import PortfolioService
from app.portfolio.services.proposals import ProposalService
from app.portfolio.services.queries import PortfolioQueries
from app.portfolio.services.rebalance_runs import RebalanceRuns
from app.portfolio.services.rebalancing import Rebalancing
from app.portfolio.services.replacement import ReplacementService
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.scoring.services.service import BoardRetention, Scoring
from app.settings import Settings
from app.signals.services.actions import ProposedSignals, SignalActions
from app.signals.services.evaluation import SignalEvaluator
from app.signals.services.outcomes import SignalOutcomes
from app.signals.services.service import SignalService
from app.signals.services.sources import SignalSources
from app.telemetry import observers
from app.trading.services.position_sizing import Trading
from app.trading.services.safety import Safety
from app.workers.supervisor import Supervisor

LAST_FUNDING: Final = timedelta(days=1)  # a swap has ended: its last payment is still asked for


def compose(
    settings: Settings,
    metrics: Metrics,
    database: Database,
    exchange: Exchange,
    in_force: CurrentSettings,
    supervisor: Supervisor,
    watch: ExchangeWatch,
    stream: EventStream,
    jobs: Jobs,
    feed: FeedView,
    *,
    is_streamed: bool,
    seams: RuntimeValues | None = None,
) -> MySymbolsServiceV2:
    """The use cases over what was opened; nothing starts here."""
    durations = elapsed_s if seams is None else seams.monotonic
    seams = seams or RuntimeValues()
    utc_now, new_id = seams.now, seams.new_id
    market = _market(settings, metrics, database, exchange, in_force, feed, seams)
    market.is_streamed = is_streamed
    mode = mode_over(market, database, seams.monotonic)
    # It was put together before the database was open, which knows whether it is shared.
    shared = stream.shared = shared_by(database)
    idempotency = IdempotentExecutor(database, utc_now, shared)
    scoring = Scoring(
        market=market,
        database=database,
        clock=utc_now,
        monotonic=seams.monotonic,
        new_id=new_id,
        configuration=in_force,
        idempotency=idempotency,
        fence=feed.fence,
        factors=plugins.factors(),
        metrics=metrics,
    )

    def exchange_time() -> datetime | None:
        clock = market.server_clock
        return clock.now() if clock.synced else None

    context = DecisionContextFactory(
        scoring,
        market,
        utc_now,
        mode=mode.state,
        refusals=Refusals(observers.refused_decision(metrics)),
        elapsed=ElapsedTime(durations, exchange_time).since,
    )
    vault = ChannelSecrets(
        FernetCipher(settings.notifications.key_list, key_file(settings.database.url))
    )
    recorder = ChangeRecorder(code_version(), with_equity_index)
    system = SystemView(
        feed.link, watch, market.registry, market.server_clock, supervisor.facts, feed.drifted
    )
    configuration = ConfigurationService(database, context, idempotency, recorder, scoring.factors)
    performance = Performance(database, context, idempotency, recorder)
    portfolio = PortfolioService(database, context, idempotency, recorder)
    executors = {ProposalKind.SIGNAL: ProposedSignals(portfolio, utc_now)}
    runs = RebalanceRuns(database, utc_now, new_id, f"{gethostname()}:{os.getpid()}", shared)
    rebalancing = Rebalancing(database, context, idempotency, recorder, runs)
    signals = SignalService(
        database, context, idempotency, new_id, SignalEvaluator(plugins.agents())
    )

    sources = StatusSources(database, scoring, in_force, metrics)
    alerts = AlertService(database, context, idempotency, new_id, system)
    notifications = NotificationService(
        database, utc_now, new_id, idempotency, _notifiers(settings, vault, seams), vault
    )
    job_service = JobService(jobs, utc_now, new_id, JobNews(database))
    return MySymbolsServiceV2(
        registry=market.registry,
        market=market,
        quality=QualityService(market, database, idempotency),
        scoring=scoring,
        portfolio=portfolio,
        rebalancing=rebalancing,
        replacement=ReplacementService(database, context, idempotency, recorder, new_id),
        proposals=ProposalService(
            database, utc_now, idempotency, rebalancing, portfolio, executors
        ),
        performance=performance,
        performance_marks=ValuationSnapshots(performance),
        reporting=ReportService(performance),
        metrics=MetricsService(database, context),
        safety=Safety(database, context),
        trading=Trading(database, context),
        controls=ControlService(database, context, idempotency, recorder),
        queries=PortfolioQueries(database, context),
        analytics=PerformanceAnalytics(database, context),
        integrity=IntegrityService(database, context),
        alerts=alerts,
        alert_rules=AlertRuleService(configuration),
        configuration=configuration,
        status=sources.status(
            utc_now,
            code_version(),
            feed.link,
            market.facts,
            supervisor.facts,
            market.count,
            mode,
            feed.processes,
        ),
        sample_data=SampleData(market, scoring),
        idempotency=idempotency,
        stream=stream,
        notifications=notifications,
        jobs=job_service,
        retention=Retention(
            configuration,
            idempotency,
            stream,
            notifications,
            alerts,
            job_service,
            runs,
            signals,
            BoardRetention(database, utc_now, find_decided_boards),
        ),
        signals=signals,
        signal_actions=SignalActions(database, context, portfolio, new_id),
        signal_outcomes=SignalOutcomes(database, context),
        signal_sources=SignalSources(signals, plugins.sources()),
    )


def _market(
    settings: Settings,
    metrics: Metrics,
    database: Database,
    exchange: Exchange,
    in_force: CurrentSettings,
    feed: FeedView,
    seams: RuntimeValues,
) -> MarketData:
    """The market with the registry of its contracts; only the owner of the feed writes them."""

    async def held() -> tuple[str, ...]:
        async with database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
        return tuple(member.contract for member in portfolio.members)

    async def open_swaps() -> frozenset[str]:
        async with database.read() as unit:
            repository = unit.get(ReplacementRepository)
            return await repository.open_swaps(seams.now() - LAST_FUNDING)

    registry = Registry(
        exchange=exchange,
        database=database,
        sectors=shipped_sectors(),
        clock=seams.now,
        monotonic=seams.monotonic,
        new_id=seams.new_id,
        held=held,
        fence=feed.fence,
    )
    return MarketData(
        exchange=exchange,
        database=database,
        registry=registry,
        configuration=in_force,
        clock=seams.now,
        monotonic=seams.monotonic,
        metrics=metrics,
        workers=settings.kucoin.concurrency,
        books_per_s=BOOKS_PER_S * settings.kucoin.quota_per_window / WHOLE_QUOTA,
        sleep=seams.sleep,
        is_owner=feed.is_owner,
        fence=feed.fence,
        open_swaps=open_swaps,
    )


def _notifiers(settings: Settings, vault: ChannelSecrets, seams: RuntimeValues) -> Notifiers:
    """Each opens what the vault has sealed only when it sends."""
    local = settings.notifications.allow_private_addresses
    ways = (
        WebhookNotifier(lambda: int(seams.now().timestamp()), Egress(local)),
        PeopleNotifier(Egress(local, timeout_s=TIMEOUT_S)),
    )
    return by_kind(DecryptingNotifier(way, vault) for way in ways)
