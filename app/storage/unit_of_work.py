"""One transaction with its repositories, and the events that leave after its commit."""

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.event_codec import drafts_of
from app.storage.alerts import AlertRepository
from app.storage.candle_revisions import CandleRevisionRepository
from app.storage.candles import CandleRepository
from app.storage.configuration import ConfigurationRepository
from app.storage.controls import ControlRepository
from app.storage.events import EventRepository
from app.storage.facts import FactRepository
from app.storage.history import HistoryRepository
from app.storage.hourly_bars import HourlyBarRepository
from app.storage.idempotency import IdempotencyRepository
from app.storage.leases import LeaseRepository
from app.storage.market import MarketRepository
from app.storage.notifications import NotificationRepository
from app.storage.performance_marks import PerformanceMarkRepository
from app.storage.portfolio import PortfolioRepository
from app.storage.proposals import ProposalRepository
from app.storage.quality import QualityRepository
from app.storage.rebalance_runs import RebalanceRunRepository
from app.storage.replacements import ReplacementRepository
from app.storage.replicas import ReplicaRepository
from app.storage.revisions import RevisionRepository
from app.storage.scoring import ScoringRepository
from app.storage.shared_market import SharedMarketRepository
from app.storage.signal_counts import SignalCountRepository
from app.storage.signal_effects import SignalEffectRepository
from app.storage.signal_outcomes import SignalOutcomeRepository
from app.storage.signal_records import SignalRecordRepository
from app.storage.signals import SignalRepository
from app.storage.symbols import SymbolRepository
from app.storage.trades import TradeRepository


class UnitOfWork:
    """What one use case reads and writes, whole or not at all."""

    def __init__(self, connection: AsyncConnection, *, writes: bool = True) -> None:
        self.connection = connection
        self.writes = writes
        self.announced: list[object] = []
        self.symbols = SymbolRepository(connection)
        self.candles = CandleRepository(connection)
        self.candle_revisions = CandleRevisionRepository(connection)
        self.market = MarketRepository(connection)
        self.quality = QualityRepository(connection)
        self.scoring = ScoringRepository(connection)
        self.portfolio = PortfolioRepository(connection)
        self.proposals = ProposalRepository(connection)
        self.rebalance_runs = RebalanceRunRepository(connection)
        self.replacements = ReplacementRepository(connection)
        self.history = HistoryRepository(connection)
        self.configuration = ConfigurationRepository(connection)
        self.idempotency = IdempotencyRepository(connection)
        self.controls = ControlRepository(connection)
        self.trades = TradeRepository(connection)
        self.performance_marks = PerformanceMarkRepository(connection)
        self.facts = FactRepository(connection)
        self.alerts = AlertRepository(connection)
        self.events = EventRepository(connection)
        self.notifications = NotificationRepository(connection)
        self.replicas = ReplicaRepository(connection)
        self.revisions = RevisionRepository(connection)
        self.leases = LeaseRepository(connection)
        self.signals = SignalRepository(connection)
        self.signal_effects = SignalEffectRepository(connection)
        self.signal_counts = SignalCountRepository(connection)
        self.signal_outcomes = SignalOutcomeRepository(connection)
        self.signal_records = SignalRecordRepository(connection)
        self.hourly_bars = HourlyBarRepository(connection)
        self.shared_market = SharedMarketRepository(connection)

    def announce(self, event: object) -> None:
        """Publishes `event` once the transaction is committed; a rollback forgets it.

        What the event codec knows is stored in the same transaction.
        """
        self.announced.append(event)

    async def store_announced(self) -> None:
        """The last statements before a commit: numbers are given in the order of the commits."""
        drafts = [draft for event in self.announced for draft in drafts_of(event)]
        await self.events.append(drafts)
