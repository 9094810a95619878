"""What the status tells of portfolio and scoring, read where it stands."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.alerts.services.alerting_pulse import AlertingPulse
from app.configuration.domain.model import Configuration
from app.foundation.concurrency import SingleFlight
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock, ExchangeLink
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.market.services.service_mode import ModeNow
from app.operations.services.health import (
    MarketFacts,
    PortfolioFacts,
    ScoringFacts,
    Status,
    TaskFacts,
)
from app.operations.services.health_models import ProcessFacts
from app.operations.services.process_metrics import VitalSigns, counted
from app.scoring.services.service import Scoring
from app.signals.domain.signal_statistics import SignalQueue


@dataclass(frozen=True, slots=True)
class StatusSources:
    """Where each figure is read."""

    database: Database
    scoring: Scoring
    in_force: Callable[[], Configuration]
    metrics: Metrics

    def status(
        self,
        clock: Clock,
        version: str,
        exchange_link: Callable[[], ExchangeLink],
        market_facts: Callable[[], MarketFacts],
        task_facts: Callable[[], tuple[TaskFacts, ...]],
        count_market: Callable[[], Awaitable[None]],
        mode: ModeNow,
        processes: Callable[[], tuple[ProcessFacts, ...]] = lambda: (),
    ) -> Status:
        """The status of a service that starts now; who asks at the same time shares one ping."""
        pinging: SingleFlight[None] = SingleFlight()
        return Status(
            started_at=clock(),
            version=version,
            clock=clock,
            ping_database=lambda: pinging(self.ping),
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
            pulse=AlertingPulse(
                self.database, clock, self.metrics, lambda: self.in_force().cadences.alerts, clock()
            ),
            vitals=VitalSigns(counted(self.metrics)),
        )

    async def ping(self) -> None:
        """Whether reads can be served: it answers, and has the schema of this version (B11).

        Where changes were refused one is tried again (B08).
        """
        await self.database.ping(revision=migrations.head())
        await self.database.try_writing()

    async def portfolio_facts(self) -> PortfolioFacts:
        """The committed portfolio in figures; raises UnavailableError without a database."""
        async with self.database.read() as unit:
            portfolio = await unit.portfolio.load()
        most = self.in_force().max_portfolio_symbols
        return PortfolioFacts(portfolio.version, len(portfolio.members), most, portfolio.cash_u)

    async def signal_queue(self) -> SignalQueue:
        """What waits of signals; raises UnavailableError without a database."""
        async with self.database.read() as unit:
            return await unit.signal_counts.queue()

    def scoring_facts(self) -> ScoringFacts | None:
        """The newest board in figures; None before the first."""
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
