"""MySymbolsServiceV2: the facade of the use cases for embedding code and the command line."""

from dataclasses import dataclass
from decimal import Decimal

from app.alerts.domain.models import Alert
from app.alerts.services.daily_digest import DailyDigest
from app.alerts.services.notifications import NotificationService
from app.alerts.services.service import AlertFilter, AlertRuleService, AlertService
from app.configuration.domain.model import WeightingMethod
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor
from app.foundation.job_service import JobService
from app.market.services.quality import QualityService
from app.market.services.service import MarketData
from app.market.services.symbol_registry import Registry
from app.operations.services.audit_log import AuditLog
from app.operations.services.configuration import ConfigurationService
from app.operations.services.event_stream import EventStream
from app.operations.services.health import StatusService
from app.operations.services.integrity import Integrity, IntegrityService
from app.operations.services.retention import Retention
from app.operations.services.sample_data import SampleData
from app.performance.services.analytics import (
    Analytics,
    MetricsService,
    PerformanceAnalytics,
    PortfolioMetrics,
)
from app.performance.services.report import ReportService
from app.performance.services.service import Performance, ResultSubmission, ValuationSnapshots
from app.portfolio.domain.event_log import PortfolioEvent
from app.portfolio.domain.returns import Trade
from app.portfolio.services.controls import ControlService
from app.portfolio.services.membership import PortfolioService, RemoveResult, ReplaceResult
from app.portfolio.services.proposals import ProposalService
from app.portfolio.services.queries import CorrelationReport, PortfolioQueries
from app.portfolio.services.rebalance_runs import RebalanceResult
from app.portfolio.services.rebalancing import Rebalancing
from app.portfolio.services.replacement import (
    ReplacementOverview,
    ReplacementResult,
    ReplacementService,
)
from app.portfolio.services.tradeability import DataFacts, Tradeability
from app.portfolio.services.views import (
    MemberView,
    OptimizationResult,
    PortfolioView,
    WeightsReport,
)
from app.scoring.domain.board import Board, Card
from app.scoring.services.service import Scoring
from app.security.services.audit import SecurityAudit
from app.security.services.keys import ApiKeyService
from app.security.services.sessions import SessionService
from app.security.services.tickets import TicketService
from app.security.services.users import UserService
from app.signals.services.actions import SignalActions
from app.signals.services.outcomes import SignalOutcomes
from app.signals.services.service import SignalService
from app.signals.services.sources import SignalSources
from app.trading.services.position_sizing import SizedPosition, Tradeable, Trading
from app.trading.services.safety import Safety, SafetyReport


@dataclass(frozen=True, slots=True)
class MySymbolsServiceV2:
    """Facade of the use cases without logic of its own.

    Embedding code relies on the method names; routes request use cases by type.
    """

    registry: Registry
    market: MarketData
    quality: QualityService
    scoring: Scoring
    portfolio: PortfolioService
    rebalancing: Rebalancing
    replacement: ReplacementService
    proposals: ProposalService
    performance: Performance
    performance_marks: ValuationSnapshots
    reporting: ReportService
    metrics: MetricsService
    safety: Safety
    trading: Trading
    controls: ControlService
    queries: PortfolioQueries
    analytics: PerformanceAnalytics
    integrity: IntegrityService
    alerts: AlertService
    alert_rules: AlertRuleService
    configuration: ConfigurationService
    status: StatusService
    sample_data: SampleData
    idempotency: IdempotentExecutor
    stream: EventStream
    notifications: NotificationService
    daily_digest: DailyDigest
    keys: ApiKeyService
    users: UserService
    security_audit: SecurityAudit
    audit_log: AuditLog
    sessions: SessionService
    tickets: TicketService
    jobs: JobService
    retention: Retention
    signals: SignalService
    signal_actions: SignalActions
    signal_outcomes: SignalOutcomes
    signal_sources: SignalSources

    async def get_portfolio(self) -> PortfolioView:
        return await self.portfolio.view()

    async def add_symbol_to_portfolio(
        self, symbol: str, reason: str, command: Command
    ) -> CommandResult[MemberView]:
        return await self.portfolio.add(symbol, reason, command)

    async def remove_symbol_from_portfolio(
        self, symbol: str, reason: str, command: Command
    ) -> CommandResult[RemoveResult]:
        return await self.portfolio.remove(symbol, reason, command)

    async def replace_symbol(
        self, old_symbol: str, new_symbol: str, reason: str, command: Command
    ) -> CommandResult[ReplaceResult]:
        return await self.portfolio.replace(old_symbol, new_symbol, reason, command)

    async def calculate_symbol_scores(self) -> Board:
        return await self.scoring.calculate()

    def get_symbol_scores(self) -> Board:
        return self.scoring.board()

    def explain_score(self, symbol: str) -> tuple[Board, Card]:
        return self.scoring.explain(self.registry.resolve(symbol).symbol)

    async def calculate_dynamic_weights(self) -> WeightsReport:
        return await self.rebalancing.weights()

    async def get_tradeable_symbols(self) -> tuple[tuple[Tradeable, ...], DataFacts]:
        return await self.trading.tradeable()

    async def should_trade_symbol(self, symbol: str) -> tuple[Tradeability, DataFacts]:
        return await self.trading.should_trade(symbol)

    async def get_position_size_for_symbol(
        self, symbol: str, account_balance: Decimal, leverage: Decimal = Decimal(1)
    ) -> tuple[SizedPosition, DataFacts]:
        return await self.trading.position_size(symbol, account_balance, leverage)

    async def rebalance_portfolio(
        self, command: Command, *, dry_run: bool = False
    ) -> CommandResult[RebalanceResult]:
        return await self.rebalancing.rebalance(command, dry_run=dry_run)

    async def optimize_portfolio_weights(self, method: WeightingMethod) -> OptimizationResult:
        return await self.rebalancing.optimize(method)

    async def evaluate_portfolio_replacement(self) -> ReplacementOverview:
        return await self.replacement.evaluate()

    async def execute_portfolio_replacement(
        self, command: Command
    ) -> CommandResult[ReplacementResult]:
        return await self.replacement.execute(command)

    async def check_portfolio_correlation(self, days: int | None = None) -> CorrelationReport:
        return await self.queries.correlation(days)

    async def check_portfolio_alerts(self) -> tuple[Alert, ...]:
        alerts, _ = await self.alerts.list(AlertFilter())
        return alerts

    async def update_performance_metrics(
        self, symbol: str, result: ResultSubmission, reason: str, command: Command
    ) -> CommandResult[Trade]:
        return await self.performance.book(symbol, result, reason, command)

    async def get_portfolio_analytics(self) -> Analytics:
        return await self.analytics.summary()

    async def get_portfolio_metrics(self) -> PortfolioMetrics:
        return await self.metrics.metrics()

    async def get_portfolio_history(
        self, before_seq: int | None = None, limit: int = 50
    ) -> tuple[PortfolioEvent, ...]:
        return await self.queries.history(before_seq, limit)

    async def validate_portfolio_safety(self) -> SafetyReport:
        return await self.safety.validate()

    async def validate_portfolio_integrity(self) -> Integrity:
        return await self.integrity.check()
