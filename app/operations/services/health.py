"""Liveness, readiness, health and status of the service."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from app.alerts.services.monitor import AlertingHeartbeat
from app.configuration.domain.model import Configuration
from app.foundation.concurrency import SingleFlight
from app.foundation.data_status import DataStatus
from app.foundation.errors import ServiceError
from app.foundation.health import Mode, PoolFacts, ProcessFacts, TaskFacts
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.market.domain.models import ExchangeLink
from app.market.services.health_facts import MarketFacts, ReferenceReport, StreamReport
from app.market.services.service_mode import CurrentMode, halt_cause
from app.operations.services.health_checks import (
    ComponentHealth,
    ComponentState,
    Health,
    PortfolioStatus,
    ScoringFacts,
    ServiceStatus,
    alerting,
    background_task,
    certificate,
    exchange,
    market_data,
    reference,
    scoring,
    security_events,
    stream,
    worst,
)
from app.operations.services.process_metrics import (
    ProcessMetricsCollector,
    ServiceLevels,
    free_disk_bytes,
    work_counters,
)
from app.operations.services.service_figures import ServiceFigures, ServiceFiguresReader
from app.portfolio.services.decision_context import DecisionContextFactory
from app.portfolio.storage.portfolio import PortfolioRepository
from app.scoring.services.service import Scoring
from app.security.storage.audit import SecurityEventRepository
from app.signals.domain.track_record import SignalQueue
from app.signals.storage.statistics import SignalCountRepository


async def _no_op() -> None:
    """Default callback without effect."""


@dataclass(slots=True)
class StatusService:
    """Combines the state of all components; one that cannot answer is down, never left out."""

    started_at: datetime
    version: str
    clock: Clock
    ping_database: Callable[[], Awaitable[None]]
    exchange_link: Callable[[], ExchangeLink]
    market_facts: Callable[[], MarketFacts]
    scoring_facts: Callable[[], ScoringFacts | None]
    portfolio_facts: Callable[[], Awaitable[PortfolioStatus]]
    task_facts: Callable[[], tuple[TaskFacts, ...]]
    mode: CurrentMode  # same value for header, health and decisions
    processes: Callable[[], tuple[ProcessFacts, ...]] = lambda: ()
    stream_report: Callable[[], StreamReport | None] = lambda: None  # None: polling only
    reference_report: Callable[[], ReferenceReport | None] = lambda: (
        None
    )  # None: no reference exchange
    count_market: Callable[[], Awaitable[None]] = _no_op  # refreshes the counts of the market facts
    read_gauges: Callable[[], Awaitable[None]] = _no_op
    signal_queue: Callable[[], Awaitable[SignalQueue]] | None = None
    refusal: Callable[[], ServiceError | None] = lambda: None  # reason for refusing changes
    certificate_fault: Callable[[], str | None] | None = None  # None: no TLS
    trimmed_at: Callable[[], Awaitable[datetime | None]] | None = None  # of security events
    pool: Callable[[], PoolFacts] | None = None
    read_figures: Callable[[], Awaitable[ServiceFigures]] | None = None
    pulse: AlertingHeartbeat | None = None
    levels: ServiceLevels = field(default_factory=ServiceLevels)
    process: ProcessMetricsCollector = field(default_factory=ProcessMetricsCollector)
    _down_since: dict[str, datetime] = field(default_factory=dict)
    _since: dict[str, tuple[ComponentState, datetime]] = field(default_factory=dict)

    async def ready(self) -> ComponentHealth:
        """Returns the health of the database, without which no read can be served."""
        return await self._database()

    async def alerts_evaluated(self) -> None:
        if self.pulse is not None:
            await self.pulse.evaluated()

    async def notifications_delivered(self) -> None:
        if self.pulse is not None:
            await self.pulse.delivered()

    async def observe(self) -> None:
        """Takes a periodic sample for service levels and throughput."""
        if self.pulse is not None:
            await self.pulse.refresh()
        self.process.sample()
        health = await self.health()
        states = {one.name: one.state for one in health.components}
        self.levels.sample(
            feed_uptime=states["exchange"] is ComponentState.UP
            and health.data_status is not DataStatus.UNAVAILABLE,
            decision_freshness=states["scoring"] is ComponentState.UP
            and health.mode is Mode.NORMAL,
        )

    async def health(self) -> Health:
        await self.count_market()
        market = self.market_facts()
        components = [
            await self._database(),
            exchange(self.exchange_link()),
            market_data(market),
            *stream(self.stream_report()),
            *reference(self.reference_report()),
            scoring(self.scoring_facts()),
            *(background_task(task) for task in self.task_facts()),
        ]
        if self.certificate_fault is not None:
            components.append(certificate(self.certificate_fault()))
        if self.trimmed_at is not None and components[0].state is not ComponentState.DOWN:
            with suppress(ServiceError):  # the next look at the database names its failure
                components.append(security_events(await self.trimmed_at(), self.clock()))
        if self.pulse is not None:
            components.append(alerting(self.pulse, self.started_at))
        dated = tuple(map(self._with_start, components))
        return Health(
            status=worst(dated),
            mode=self.mode(),
            components=dated,
            levels=self.levels.levels(),
            process=self.process.read(),
            data_source=market.data_source,
            data_status=market.data_status,
            as_of=market.as_of,
        )

    async def figures(self) -> ServiceFigures | None:
        """Returns portfolio, decisions and storage; None while the database does not answer."""
        if self.read_figures is None:
            return None
        try:
            return await self.read_figures()
        except ServiceError:
            return None

    async def status(self) -> ServiceStatus:
        health = await self.health()
        return ServiceStatus(
            started_at=self.started_at,
            version=self.version,
            mode=health.mode,
            market=self.market_facts(),
            stream=self.stream_report(),
            scoring=self.scoring_facts(),
            portfolio=await self.portfolio_facts(),
            signals=None if self.signal_queue is None else await self.signal_queue(),
            tasks=self.task_facts(),
            processes=self.processes(),
            pool=None if self.pool is None else self.pool(),
        )

    async def _database(self) -> ComponentHealth:
        try:
            await self.ping_database()
        except ServiceError as error:
            return ComponentHealth(
                "database",
                ComponentState.DOWN,
                self._down_since.setdefault("database", self.clock()),
                str(error.code),
                error.detail,
                None,
                "every request retries; no change is made until it responds",
            )
        self._down_since.pop("database", None)
        refusal = self.refusal()
        if refusal is not None:
            return ComponentHealth(
                "database",
                ComponentState.DEGRADED,
                None,
                halt_cause(refusal).value,
                refusal.detail,
                self.clock(),
                "reads continue; a write is retried every few seconds: free space, or allow writes",
            )
        return ComponentHealth("database", ComponentState.UP, None, None, None, self.clock(), None)

    def _with_start(self, component: ComponentHealth) -> ComponentHealth:
        """Returns the component with the start of its state, unless it has one itself."""
        known = self._since.get(component.name)
        if known is None or known[0] is not component.state:
            known = self._since[component.name] = (component.state, self.clock())
        return component if component.since is not None else replace(component, since=known[1])


@dataclass(frozen=True, slots=True)
class StatusSources:
    """Sources of the status figures."""

    database: Database
    scoring: Scoring
    in_force: Callable[[], Configuration]
    metrics: Metrics
    contexts: DecisionContextFactory
    disk: Path = Path()  # on the disk whose free space is reported

    def status(
        self,
        clock: Clock,
        version: str,
        exchange_link: Callable[[], ExchangeLink],
        market_facts: Callable[[], MarketFacts],
        task_facts: Callable[[], tuple[TaskFacts, ...]],
        count_market: Callable[[], Awaitable[None]],
        mode: CurrentMode,
        processes: Callable[[], tuple[ProcessFacts, ...]] = lambda: (),
    ) -> StatusService:
        """Returns the status service of this process; concurrent requests share one ping."""
        ping: SingleFlight[None] = SingleFlight()
        return StatusService(
            started_at=clock(),
            version=version,
            clock=clock,
            ping_database=lambda: ping(self.ping),
            exchange_link=exchange_link,
            market_facts=market_facts,
            count_market=count_market,
            mode=mode,
            scoring_facts=self.scoring_facts,
            portfolio_facts=self.portfolio_facts,
            signal_queue=self.signal_queue,
            task_facts=task_facts,
            processes=processes,
            refusal=lambda: self.database.refusal,
            trimmed_at=self.trimmed_at,
            pool=lambda: self.database.pool,
            pulse=AlertingHeartbeat(
                self.database,
                clock,
                self.metrics,
                lambda: self.in_force().intervals.alerts_s,
                clock(),
            ),
            read_figures=ServiceFiguresReader(self.database, self.contexts, self.metrics).read,
            process=ProcessMetricsCollector(
                work_counters(self.metrics),
                disk_free=lambda: free_disk_bytes(self.disk),
                response_times=self.metrics.response_times,
            ),
        )

    async def ping(self) -> None:
        """Checks that the database responds and has the schema of this version (B11).

        After a refused change a write is tried again (B08).
        """
        await self.database.ping(revision=migrations.head())
        await self.database.retry_writes()

    async def portfolio_facts(self) -> PortfolioStatus:
        """Returns figures of the committed portfolio. Raises UnavailableError."""
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
        most = self.in_force().max_portfolio_symbols
        return PortfolioStatus(portfolio.version, len(portfolio.members), most, portfolio.cash_u)

    async def signal_queue(self) -> SignalQueue:
        """Returns figures of waiting signals. Raises UnavailableError."""
        async with self.database.read() as unit:
            return await unit.get(SignalCountRepository).queue()

    async def trimmed_at(self) -> datetime | None:
        """Time when security events were last deleted by number. Raises UnavailableError."""
        async with self.database.read() as unit:
            return await unit.get(SecurityEventRepository).trimmed_at()

    def scoring_facts(self) -> ScoringFacts | None:
        """Returns figures of the newest board; None before the first."""
        board = self.scoring.latest()
        if board is None:
            return None
        scored = board.universe_size
        return ScoringFacts(
            board.run_id,
            board.as_of,
            board.calculated_at,
            scored,
            len(board.cards) - scored,
            self.scoring.status_of(board),
        )
