"""MySymbolsServiceV2: the facade of the use cases for embedding code and the command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypedDict, TypeVar

from app.alerts.domain.models import Alert
from app.alerts.services.alert_replay import AlertReplayer
from app.alerts.services.daily_digest import DailyDigest
from app.alerts.services.notifications import NotificationService
from app.alerts.services.service import AlertFilter, AlertRuleService, AlertService
from app.configuration.domain.model import WeightingMethod
from app.foundation.decision_log import DecisionInputs
from app.foundation.errors import Code, ConflictError, RefusedError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor
from app.foundation.job_service import JobService
from app.market.services.history import MarketHistory
from app.market.services.quality import QualityService
from app.market.services.sectors import SectorService
from app.market.services.service import MarketData
from app.market.services.symbol_registry import Registry
from app.operations.services.audit_log import AuditLog
from app.operations.services.changes import ChangeReader
from app.operations.services.configuration import ConfigurationService
from app.operations.services.dashboard import DashboardService
from app.operations.services.debug_report import DebugReporter
from app.operations.services.event_stream import EventStream
from app.operations.services.health import StatusService
from app.operations.services.integrity import Integrity, IntegrityService
from app.operations.services.preview import ChangePreview
from app.operations.services.retention import Retention
from app.operations.services.sample_data import SampleData, SampleDataResult
from app.performance.domain.attribution import ActiveReturn, Attribution
from app.performance.services.analytics import (
    Analytics,
    MetricsService,
    PerformanceAnalytics,
    PortfolioMetrics,
)
from app.performance.services.report import Report, ReportService
from app.performance.services.service import Performance, ResultSubmission, ValuationSnapshots
from app.portfolio.domain.event_log import PortfolioEvent
from app.portfolio.domain.models import FULL, Member
from app.portfolio.domain.rebalance_plan import WeightChange
from app.portfolio.domain.returns import Trade
from app.portfolio.services.controls import ControlService
from app.portfolio.services.decision_replay import DecisionReplayer
from app.portfolio.services.membership import PortfolioService, RemoveResult, ReplaceResult
from app.portfolio.services.proposals import ProposalService
from app.portfolio.services.queries import CorrelationReport, PortfolioQueries
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
from app.research.services.backtest_jobs import Backtests
from app.research.services.live_validation import ScoreValidation
from app.scoring.domain.board import Board, Card
from app.scoring.domain.ranking import AlgorithmType, RankedCard, rank_cards
from app.scoring.services.service import Scoring
from app.security.services.audit import SecurityAudit
from app.security.services.keys import ApiKeyService
from app.security.services.sessions import SessionService
from app.security.services.tickets import TicketService
from app.security.services.users import UserService
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Direction, Signal, SignalClaim
from app.signals.services.actions import SignalActions
from app.signals.services.outcomes import SignalOutcomes
from app.signals.services.service import SignalService, SignalStatistics
from app.signals.services.sources import SignalSources
from app.signals.services.verdict_replay import VerdictReplayer
from app.trading.services.position_sizing import SizedPosition, Tradeable, Trading
from app.trading.services.safety import Safety, SafetyReport

T = TypeVar("T")
EMBEDDED: Final = "embedded"  # actor of changes by embedding code
REASON: Final = "embedding code"
_ONE_PERCENT: Final = FULL // 100
_UNREADABLE: Final = frozenset({Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.VALIDATION_FAILED})


class WeightDelta(TypedDict):
    """Weight of one member before and after, in per cent."""

    old: float
    new: float
    change: float


@dataclass(frozen=True, slots=True)
class BookedPerformance:
    """Booked result; without a trade id of the caller the same call books another one."""

    trade: Trade
    is_repeatable: bool


@dataclass(frozen=True, slots=True)
class MySymbolsServiceV2:
    """Facade of the use cases without logic of its own.

    Embedding code relies on the method names; routes request use cases by type.
    """

    registry: Registry
    market: MarketData
    history: MarketHistory
    sectors: SectorService
    quality: QualityService
    scoring: Scoring
    score_validation: ScoreValidation
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
    change_preview: ChangePreview
    status: StatusService
    debugging: DebugReporter
    sample_data: SampleData
    idempotency: IdempotentExecutor
    stream: EventStream
    changes: ChangeReader
    dashboard: DashboardService
    notifications: NotificationService
    daily_digest: DailyDigest
    keys: ApiKeyService
    users: UserService
    security_audit: SecurityAudit
    audit_log: AuditLog
    sessions: SessionService
    tickets: TicketService
    jobs: JobService
    backtests: Backtests
    retention: Retention
    signals: SignalService
    signal_actions: SignalActions
    signal_outcomes: SignalOutcomes
    signal_sources: SignalSources
    decision_replay: DecisionReplayer
    verdict_replay: VerdictReplayer
    alert_replay: AlertReplayer
    decision_inputs: DecisionInputs

    async def get_portfolio(self) -> PortfolioView:
        return await self.portfolio.view()

    async def initialize_sample_data(self) -> SampleDataResult:
        """Fills an empty service from the sandbox. Raises ConflictError elsewhere."""
        return await self.sample_data.load()

    async def add_symbol(
        self, symbol: str, reason: str = REASON, user: str | None = None
    ) -> MemberView:
        """Adds a member; raises as `PortfolioService.add`."""
        return _done(await self.portfolio.add(symbol, reason, self._command(user)))

    async def remove_symbol(
        self, symbol: str, reason: str = REASON, user: str | None = None
    ) -> RemoveResult:
        """Removes a member; raises as `PortfolioService.remove`."""
        return _done(await self.portfolio.remove(symbol, reason, self._command(user)))

    async def replace_symbol(
        self, old_symbol: str, new_symbol: str, reason: str = REASON, user: str | None = None
    ) -> ReplaceResult:
        """Replaces a member; raises as `PortfolioService.replace`."""
        command = self._command(user)
        return _done(await self.portfolio.replace(old_symbol, new_symbol, reason, command))

    async def clear_portfolio(
        self, reason: str = REASON, user: str | None = None
    ) -> tuple[Member, ...]:
        """Removes every member in one transaction; returns the former members."""
        return _done(await self.portfolio.clear(reason, self._command(user)))

    async def add_symbol_to_portfolio(
        self, symbol: str, reason: str, command: Command
    ) -> CommandResult[MemberView]:
        return await self.portfolio.add(symbol, reason, command)

    async def remove_symbol_from_portfolio(
        self, symbol: str, reason: str, command: Command
    ) -> CommandResult[RemoveResult]:
        return await self.portfolio.remove(symbol, reason, command)

    async def calculate_symbol_scores(self) -> Board:
        return await self.scoring.calculate()

    async def get_symbol_scores(self, limit: int = 50) -> tuple[RankedCard, ...]:
        """Returns the best symbols of the newest board by composite score.

        Raises UnavailableError (no_board_yet) before the first board.
        """
        board = self.scoring.board()
        return rank_cards(board, AlgorithmType.COMPOSITE, eligible_only=True)[:limit]

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
        self, *, dry_run: bool = False, reason: str = REASON, user: str | None = None
    ) -> dict[str, WeightDelta]:
        """Rebalances if a trigger fires; returns the changed weights by symbol, in per cent.

        `dry_run` computes the same changes and writes nothing. Raises as `Rebalancing.rebalance`.
        """
        command = self._command(user)
        done = await self.rebalancing.rebalance(command, dry_run=dry_run, reason=reason)
        return {one.symbol: _weight_delta(one) for one in _done(done).plan.changes}

    async def optimize_portfolio_weights(self, method: WeightingMethod) -> OptimizationResult:
        return await self.rebalancing.optimize(method)

    async def evaluate_portfolio_replacement(self) -> ReplacementOverview:
        return await self.replacement.evaluate()

    async def execute_portfolio_replacement(
        self, old_symbol: str, new_symbol: str, user: str | None = None
    ) -> bool:
        """Replaces `old_symbol` by `new_symbol`; False if a rule of the portfolio forbids it.

        Raises RefusedError for a spelling that names no contract, UnavailableError without fresh
        data.
        """
        try:
            await self.replace_symbol(old_symbol, new_symbol, REASON, user)
        except ConflictError:
            return False
        except RefusedError as error:
            if error.code in _UNREADABLE:
                raise
            return False
        return True

    async def execute_due_replacements(self, command: Command) -> CommandResult[ReplacementResult]:
        """Counts one evaluation and executes the replacements that are due."""
        return await self.replacement.execute(command)

    async def check_portfolio_correlation(self, days: int | None = None) -> CorrelationReport:
        return await self.queries.correlation(days)

    async def check_portfolio_alerts(self) -> tuple[Alert, ...]:
        alerts, _ = await self.alerts.list(AlertFilter())
        return alerts

    async def update_performance_metrics(
        self,
        symbol: str,
        pnl: Decimal,
        *,
        trade_id: str | None = None,
        currency: str | None = None,
        fees: Decimal = Decimal(0),
        funding: Decimal = Decimal(0),
        occurred_at: datetime | None = None,
        reason: str = REASON,
        user: str | None = None,
    ) -> BookedPerformance:
        """Books a realised result in the settlement currency of the contract, by default now.

        The same `trade_id` is booked once. A call without one is not repeatable: each makes a
        trade of its own, and the answer says so. Raises as `Performance.book`.
        """
        settle = self.registry.resolve(symbol).contract.settle
        result = ResultSubmission(
            trade_id or f"{EMBEDDED}-{self.replacement.new_id()}",
            pnl,
            settle if currency is None else currency,
            fees,
            funding,
            self.performance.contexts.clock() if occurred_at is None else occurred_at,
        )
        booked = await self.performance.book(symbol, result, reason, self._command(user))
        return BookedPerformance(_done(booked), is_repeatable=trade_id is not None)

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

    async def process_signal(
        self,
        source_name: str,
        signal_type: str,
        signal_strength: float,
        confidence_level: float,
        *,
        symbol: str | None = None,
        signal_direction: str = Direction.NEUTRAL,
        signal_data: Mapping[str, Any] | None = None,
        source_signal_id: str | None = None,
        signal_timestamp: datetime | None = None,
        expiry_timestamp: datetime | None = None,
        user: str | None = None,
    ) -> EvaluatedSignal:
        """Stores a signal and evaluates it at once if a board permits; names as over HTTP.

        Raises RefusedError for a strength or confidence outside 0..1, an unknown direction or
        symbol, and as `SignalService.submit`.
        """
        if not (0.0 <= signal_strength <= 1.0 and 0.0 <= confidence_level <= 1.0):
            detail = "signal_strength and confidence_level must be from 0 to 1."
            raise RefusedError(Code.VALIDATION_FAILED, detail)
        if signal_direction not in set(Direction):
            detail = f"signal_direction must be one of {', '.join(Direction)}."
            raise RefusedError(Code.VALIDATION_FAILED, detail)
        claim = SignalClaim(
            source_name,
            signal_type,
            signal_strength,
            confidence_level,
            symbol,
            Direction(signal_direction),
            signal_data,
            source_signal_id,
            signal_timestamp,
            expiry_timestamp,
        )
        return _done(await self.signals.submit(claim, self._command(user))).evaluated

    async def get_pending_signals(self, limit: int = 50) -> tuple[Signal, ...]:
        return await self.signals.pending(limit)

    async def get_processed_signals(
        self, hours: int = 24, limit: int = 50
    ) -> tuple[EvaluatedSignal, ...]:
        return await self.signals.processed(hours, limit)

    async def get_signal_statistics(self, days: int = 30) -> SignalStatistics:
        return await self.signals.statistics(days)

    async def get_portfolio_performance_attribution(
        self, days: int = 30
    ) -> tuple[tuple[Attribution, ...], ActiveReturn, DataFacts]:
        return await self.performance.attribution(days)

    async def generate_performance_report(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Report:
        """Builds the report at or after `since` and before `until`; by default of all days."""
        return await self.reporting.report(since, until)

    def to_kucoin(self, symbol: str) -> str:
        """Returns KuCoin's code of a known contract. Raises RefusedError."""
        return self.registry.resolve(symbol).contract.code

    def to_standard(self, symbol: str) -> str:
        """Returns the standard symbol of a known contract. Raises RefusedError."""
        return self.registry.resolve(symbol).symbol

    def _command(self, user: str | None) -> Command:
        """Command of embedding code; `user` is the person that it names."""
        return Command(EMBEDDED, self.replacement.new_id(), note=user, is_unkeyed=True)


def _done(made: CommandResult[T]) -> T:
    """Result of a command without an idempotency key, which is never a replay."""
    if made.result is None:
        raise AssertionError("a command without a key has a result")
    return made.result


def _weight_delta(one: WeightChange) -> WeightDelta:
    old, new, change = (u / _ONE_PERCENT for u in (one.old_u, one.new_u, one.change_u))
    return WeightDelta(old=old, new=new, change=change)
