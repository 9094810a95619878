"""One transaction with its repositories, and the events that leave after its commit."""

from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.alerts.storage.alerts import AlertRepository
from app.alerts.storage.notifications import NotificationRepository
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.sql.events import EventRepository
from app.foundation.sql.facts import FactRepository
from app.foundation.sql.idempotency import IdempotencyRepository
from app.foundation.sql.leases import LeaseRepository
from app.foundation.sql.replicas import ReplicaRepository
from app.market.storage.candle_revisions import CandleRevisionRepository
from app.market.storage.candles import CandleRepository
from app.market.storage.market_data import MarketRepository
from app.market.storage.quality import QualityRepository
from app.market.storage.shared_market import SharedMarketRepository
from app.market.storage.symbols import SymbolRepository
from app.operations.domain.event_codec import drafts_of
from app.performance.storage.snapshots import PerformanceMarkRepository
from app.portfolio.storage.controls import ControlRepository
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.proposals import ProposalRepository
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.portfolio.storage.revision import RevisionRepository
from app.portfolio.storage.trades import TradeRepository
from app.scoring.storage.hourly_bars import HourlyBarRepository
from app.scoring.storage.moments import MomentRepository
from app.scoring.storage.runs import ScoringRepository
from app.signals.storage.outcomes import SignalOutcomeRepository
from app.signals.storage.signals import SignalEffectRepository, SignalRepository
from app.signals.storage.statistics import SignalCountRepository, SignalRecordRepository

R = TypeVar("R")


class _Made(Generic[R]):
    """A repository that is made when it is asked for: most transactions need three of thirty."""

    def __init__(self, make: Callable[[AsyncConnection], R]) -> None:
        self._make = make
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, unit: "UnitOfWork", owner: type) -> R:
        # From now on it is found there, before us: one for the whole transaction.
        made = self._make(unit.connection)
        unit.__dict__[self._name] = made
        return made


class UnitOfWork:
    """What one use case reads and writes, whole or not at all."""

    symbols = _Made(SymbolRepository)
    candles = _Made(CandleRepository)
    candle_revisions = _Made(CandleRevisionRepository)
    market = _Made(MarketRepository)
    quality = _Made(QualityRepository)
    scoring = _Made(ScoringRepository)
    moments = _Made(MomentRepository)
    portfolio = _Made(PortfolioRepository)
    proposals = _Made(ProposalRepository)
    rebalance_runs = _Made(RebalanceRunRepository)
    replacements = _Made(ReplacementRepository)
    history = _Made(HistoryRepository)
    configuration = _Made(ConfigurationRepository)
    idempotency = _Made(IdempotencyRepository)
    controls = _Made(ControlRepository)
    trades = _Made(TradeRepository)
    performance_marks = _Made(PerformanceMarkRepository)
    facts = _Made(FactRepository)
    alerts = _Made(AlertRepository)
    events = _Made(EventRepository)
    notifications = _Made(NotificationRepository)
    replicas = _Made(ReplicaRepository)
    revisions = _Made(RevisionRepository)
    leases = _Made(LeaseRepository)
    signals = _Made(SignalRepository)
    signal_effects = _Made(SignalEffectRepository)
    signal_counts = _Made(SignalCountRepository)
    signal_outcomes = _Made(SignalOutcomeRepository)
    signal_records = _Made(SignalRecordRepository)
    hourly_bars = _Made(HourlyBarRepository)
    shared_market = _Made(SharedMarketRepository)

    def __init__(self, connection: AsyncConnection, *, writes: bool = True) -> None:
        self.connection = connection
        self.writes = writes
        self.announced: list[object] = []
        self.settled: list[Callable[[], None]] = []  # what the commit calls, once there is one

    def used(self) -> frozenset[str]:
        """The repositories that were asked for; the store of events is one in every commit."""
        return frozenset(self.__dict__.keys() & _REPOSITORIES) - {"events"}

    def announce(self, event: object) -> None:
        """Publishes `event` once the transaction is committed; a rollback forgets it.

        What the event codec knows is stored in the same transaction.
        """
        self.announced.append(event)

    async def store_announced(self) -> None:
        """The last statements before a commit: numbers are given in the order of the commits."""
        drafts = [draft for event in self.announced for draft in drafts_of(event)]
        await self.events.append(drafts)


_REPOSITORIES = frozenset(
    name for name, value in vars(UnitOfWork).items() if isinstance(value, _Made)
)
