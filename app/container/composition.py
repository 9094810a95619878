"""Composes the use cases over opened adapters; starts nothing."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from socket import gethostname
from typing import Final

from app.adapters.notifications.egress import Egress
from app.adapters.notifications.senders import TIMEOUT_S, PeopleNotifier, WebhookNotifier
from app.alerts.services.alert_replay import AlertReplayer
from app.alerts.services.daily_digest import DailyDigest
from app.alerts.services.facts import SystemView
from app.alerts.services.notifications import (
    ChannelSecrets,
    DecryptingNotifier,
    NotificationService,
    Notifiers,
    by_kind,
)
from app.alerts.services.service import AlertRuleService, AlertService
from app.alerts.storage.tables import SEALED_CHANNELS
from app.configuration.services.current import CurrentSettings
from app.container import plugins
from app.container.runtime_values import RuntimeValues, code_version, elapsed_s, full_version
from app.foundation.clock import shared_clock
from app.foundation.decision_log import DecisionInputs, DecisionLog
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.job_service import JobEventPublisher, JobService
from app.foundation.metrics import Metrics, total
from app.foundation.ports import Jobs
from app.foundation.sql.database import Database
from app.foundation.sql.job_store import key_file
from app.market.services.health_facts import EndpointErrors
from app.market.services.history import BUDGET_SHARE, MarketHistory, RequestBudget
from app.market.services.ports import Exchange
from app.market.services.quality import QualityService
from app.market.services.sectors import SectorService
from app.market.services.service import BOOKS_PER_S, WHOLE_QUOTA, MarketData
from app.market.services.service_mode import create_current_mode
from app.market.services.shared_market import FeedOwnership
from app.market.services.symbol_registry import Registry, shipped_sectors
from app.my_symbols import MySymbolsServiceV2
from app.operations.services.audit_log import AuditLog
from app.operations.services.changes import ChangeReader
from app.operations.services.configuration import ConfigurationService
from app.operations.services.dashboard import PREDICTION_HOURS, DashboardService
from app.operations.services.debug_report import DebugReporter
from app.operations.services.event_stream import EventStream
from app.operations.services.health import StatusSources
from app.operations.services.integrity import IntegrityService
from app.operations.services.preview import ChangePreview
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
from app.portfolio.services.decision_replay import DecisionReplayer
from app.portfolio.services.membership import PortfolioService
from app.portfolio.services.proposals import ProposalService
from app.portfolio.services.queries import PortfolioQueries
from app.portfolio.services.rebalance_runs import RebalanceRuns
from app.portfolio.services.rebalancing import Rebalancing
from app.portfolio.services.replacement import ReplacementService
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.research.services.backtest_jobs import Backtests
from app.research.services.live_validation import ScoreValidation
from app.scoring.services.board_retention import BoardRetention
from app.scoring.services.service import Scoring
from app.security.domain.keys import LOCAL_KEY_FILE
from app.security.services.audit import SecurityAudit, create_audit_recorder
from app.security.services.key_ring import KeyRing
from app.security.services.keys import ApiKeyService
from app.security.services.passwords import PasswordHashing
from app.security.services.peppers import PepperStore
from app.security.services.sealed_store import SealedStore
from app.security.services.sealing import SecretSealer
from app.security.services.session_ring import SessionRing
from app.security.services.sessions import SessionService
from app.security.services.tickets import TicketService
from app.security.services.users import UserService
from app.settings import Settings
from app.signals.services.actions import SignalActions, SignalProposalExecutor
from app.signals.services.evaluation import SignalEvaluator
from app.signals.services.outcomes import SignalOutcomes
from app.signals.services.service import SignalService
from app.signals.services.sources import SignalSources
from app.signals.services.verdict_replay import VerdictReplayer
from app.telemetry import observers
from app.trading.services.position_sizing import Trading
from app.trading.services.safety import Safety
from app.workers.supervisor import Supervisor

LAST_FUNDING: Final = timedelta(days=1)  # a replaced member: its last funding is still fetched


def compose(
    settings: Settings,
    metrics: Metrics,
    database: Database,
    exchange: Exchange,
    in_force: CurrentSettings,
    supervisor: Supervisor,
    watch: EndpointErrors,
    stream: EventStream,
    jobs: Jobs,
    feed: FeedOwnership,
    *,
    is_streamed: bool,
    runtime: RuntimeValues | None = None,
) -> MySymbolsServiceV2:
    """Returns the service facade with all use cases; starts nothing."""
    durations = elapsed_s if runtime is None else runtime.monotonic
    runtime = runtime or RuntimeValues()
    utc_now, new_id = runtime.now, runtime.new_id
    market = _market(settings, metrics, database, exchange, in_force, feed, runtime)
    market.is_streamed = is_streamed
    mode = create_current_mode(market, database, runtime.monotonic)
    # The stream was built before the database was open, which knows whether it is shared.
    shared = stream.shared = shared_clock(database)
    idempotency = IdempotentExecutor(database, utc_now, shared, create_audit_recorder(utc_now))
    scoring = Scoring(
        market=market,
        database=database,
        clock=utc_now,
        monotonic=runtime.monotonic,
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

    elapsed = ElapsedTime(durations, exchange_time).since
    context = DecisionContextFactory(
        scoring,
        market,
        utc_now,
        mode=mode.state,
        refusals=Refusals(observers.refused_decision(metrics), observers.decision(metrics)),
        elapsed=elapsed,
    )
    secrets = ChannelSecrets(secret_sealer(settings))
    recorder = ChangeRecorder(code_version(), with_equity_index)
    system = SystemView(
        feed.link, watch, market.registry, market.server_clock, supervisor.facts, feed.drifted
    )
    configuration = ConfigurationService(database, context, idempotency, recorder, scoring.factors)
    performance = Performance(database, context, idempotency, recorder)
    portfolio = PortfolioService(database, context, idempotency, recorder)
    executors = {ProposalKind.SIGNAL: SignalProposalExecutor(portfolio, utc_now)}
    runs = RebalanceRuns(database, utc_now, new_id, f"{gethostname()}:{os.getpid()}", shared)
    log, agents = DecisionLog(full_version()), plugins.agents()
    rebalancing = Rebalancing(database, context, idempotency, recorder, runs, log)
    signals = SignalService(
        database, context, idempotency, new_id, SignalEvaluator(agents), decisions=log
    )

    sources = StatusSources(database, scoring, in_force, metrics, context, _disk(settings))
    status = sources.status(
        utc_now,
        code_version(),
        feed.link,
        market.facts,
        supervisor.facts,
        market.count,
        mode,
        feed.processes,
    )
    alerts = AlertService(database, context, idempotency, new_id, system, log)
    decision_inputs = DecisionInputs(database, utc_now)
    notifications = NotificationService(
        database, utc_now, new_id, idempotency, _notifiers(settings, secrets, runtime), secrets
    )
    keys = key_service(settings, database, idempotency, runtime)
    users = user_service(keys)
    custom_analytics = plugins.analytics()
    job_service = JobService(jobs, utc_now, new_id, JobEventPublisher(database))
    security_audit = SecurityAudit(
        database,
        utc_now,
        runtime.monotonic,
        lambda: in_force().alerts.rules.authentication_burst.limit,
    )
    return MySymbolsServiceV2(
        registry=market.registry,
        market=market,
        history=MarketHistory(
            market,
            RequestBudget(int(BUDGET_SHARE * settings.kucoin.quota_per_window), runtime.monotonic),
        ),
        sectors=SectorService(market.registry, database, idempotency, market.registry.sectors),
        quality=QualityService(market, database, idempotency),
        scoring=scoring,
        score_validation=ScoreValidation(database, utc_now, market.source, market.status),
        portfolio=portfolio,
        rebalancing=rebalancing,
        replacement=ReplacementService(database, context, idempotency, recorder, new_id, log),
        proposals=ProposalService(
            database,
            utc_now,
            idempotency,
            rebalancing,
            portfolio,
            executors,
            elapsed,
            needs_four_eyes=settings.security.four_eyes,
        ),
        performance=performance,
        performance_marks=ValuationSnapshots(performance),
        reporting=ReportService(performance, custom_analytics),
        metrics=MetricsService(database, context),
        safety=Safety(database, context),
        trading=Trading(database, context),
        controls=ControlService(database, context, idempotency, recorder),
        queries=PortfolioQueries(database, context),
        analytics=PerformanceAnalytics(database, context, custom_analytics),
        integrity=IntegrityService(database, context),
        alerts=alerts,
        alert_rules=AlertRuleService(configuration),
        configuration=configuration,
        change_preview=ChangePreview(
            database, context, idempotency, scoring.preview, market.under, scoring.factors
        ),
        status=status,
        debugging=DebugReporter(
            settings.debug,
            database,
            market.registry,
            portfolio,
            lambda: int(total(metrics.database_slow_statements)),
        ),
        sample_data=SampleData(market, scoring),
        idempotency=idempotency,
        stream=stream,
        changes=ChangeReader(database),
        dashboard=DashboardService(
            database,
            utc_now,
            status.health,
            lambda: context.memory.newest(database),
            lambda most: performance.trades(None, most),
            lambda most: signals.processed(PREDICTION_HOURS, most),
        ),
        notifications=notifications,
        daily_digest=DailyDigest(
            database, utc_now, in_force, performance, alerts, market.facts, idempotency.shared
        ),
        keys=keys,
        users=users,
        sessions=SessionService(users, runtime.monotonic, security_audit),
        tickets=TicketService(keys),
        security_audit=security_audit,
        audit_log=AuditLog(database),
        jobs=job_service,
        backtests=Backtests(
            database, job_service, lambda: market.registry.sectors, utc_now, code_version()
        ),
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
            security_audit,
            decision_inputs,
        ),
        signals=signals,
        signal_actions=SignalActions(database, context, portfolio, new_id),
        signal_outcomes=SignalOutcomes(database, context),
        signal_sources=SignalSources(signals, plugins.sources()),
        decision_replay=DecisionReplayer(database),
        verdict_replay=VerdictReplayer(database, agents),
        alert_replay=AlertReplayer(database),
        decision_inputs=decision_inputs,
    )


def key_service(
    settings: Settings,
    database: Database,
    idempotency: IdempotentExecutor,
    runtime: RuntimeValues | None = None,
) -> ApiKeyService:
    """The use cases of API keys over an open database; nothing is read yet."""
    runtime = runtime or RuntimeValues()
    url, directory = settings.database.url, settings.security.directory
    peppers = PepperStore(settings.security.pepper_list, key_file(url, "pepper"))
    local = key_file(url, "local") if directory is None else directory / LOCAL_KEY_FILE
    people = SessionRing(database, runtime.now, peppers, settings.security.session_policy)
    ring = KeyRing(database, runtime.now, peppers, runtime.new_id, people)
    return ApiKeyService(database, runtime.now, runtime.new_id, idempotency, peppers, ring, local)


SEALED: Final = (SEALED_CHANNELS,)


def secret_sealer(settings: Settings) -> SecretSealer:
    """Seals and opens stored secrets; an SQLite database may have a key file beside it."""
    security = settings.security
    if security.sealing_keys_file is not None:
        return SecretSealer(file=security.sealing_keys_file, may_create=False)
    return SecretSealer(security.sealing_key_list, key_file(settings.database.url, "sealing"))


def sealed_store(settings: Settings, database: Database) -> SealedStore:
    """All sealed secrets of an open database; nothing is read yet."""
    return SealedStore(database, secret_sealer(settings), SEALED, RuntimeValues().now)


def user_service(keys: ApiKeyService) -> UserService:
    """The use cases of users over the database of the keys."""
    return UserService(keys, PasswordHashing())


def _market(
    settings: Settings,
    metrics: Metrics,
    database: Database,
    exchange: Exchange,
    in_force: CurrentSettings,
    feed: FeedOwnership,
    runtime: RuntimeValues,
) -> MarketData:
    """Returns the market with its contract registry; only the feed leader writes contracts."""

    async def member_contracts() -> tuple[str, ...]:
        async with database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
        return tuple(member.contract for member in portfolio.members)

    async def open_swaps() -> frozenset[str]:
        async with database.read() as unit:
            repository = unit.get(ReplacementRepository)
            return await repository.open_swaps(runtime.now() - LAST_FUNDING)

    registry = Registry(
        exchange=exchange,
        database=database,
        sectors=shipped_sectors(),
        clock=runtime.now,
        monotonic=runtime.monotonic,
        new_id=runtime.new_id,
        member_codes=member_contracts,
        fence=feed.fence,
    )
    return MarketData(
        exchange=exchange,
        database=database,
        registry=registry,
        configuration=in_force,
        clock=runtime.now,
        monotonic=runtime.monotonic,
        metrics=metrics,
        workers=settings.kucoin.concurrency,
        books_per_s=BOOKS_PER_S * settings.kucoin.quota_per_window / WHOLE_QUOTA,
        sleep=runtime.sleep,
        is_owner=feed.is_owner,
        fence=feed.fence,
        open_replacements=open_swaps,
    )


def _disk(settings: Settings) -> Path:
    """Returns a path on the disk of the SQLite file, else of the working directory."""
    file = key_file(settings.database.url, "disk")
    return Path() if file is None else file.parent


def _notifiers(settings: Settings, secrets: ChannelSecrets, runtime: RuntimeValues) -> Notifiers:
    """Returns notifiers that decrypt a channel only to send."""
    local = settings.notifications.allow_private_addresses
    senders = (
        WebhookNotifier(lambda: int(runtime.now().timestamp()), Egress(local)),
        PeopleNotifier(Egress(local, timeout_s=TIMEOUT_S)),
    )
    return by_kind(DecryptingNotifier(sender, secrets) for sender in senders)
