"""Facts of components and the results of health and status."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.health_facts import ProcessFacts, TaskFacts
from app.foundation.mode import Mode
from app.market.services.health_facts import MarketFacts, StreamReport
from app.operations.services.process_metrics import ProcessMetrics, ServiceLevel
from app.signals.domain.track_record import SignalQueue


class ComponentState(StrEnum):
    """State of one component."""

    UP = "up"
    STARTING = "starting"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """Component with its state, the start and cause of the state, and the next step."""

    name: str
    state: ComponentState
    since: datetime | None
    cause: str | None
    detail: str | None
    last_success_at: datetime | None
    next_step: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """Health of the service and its components."""

    status: ComponentState
    mode: Mode
    components: tuple[ComponentHealth, ...]
    levels: tuple[ServiceLevel, ...]
    process: ProcessMetrics
    data_source: DataSource
    data_status: DataStatus
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class ScoringFacts:
    """Figures of the newest board."""

    run_id: str
    as_of: datetime
    calculated_at: datetime
    scored: int
    unavailable: int
    data_status: DataStatus


@dataclass(frozen=True, slots=True)
class PortfolioStatus:
    """Figures of the committed portfolio."""

    version: int
    size: int
    max_size: int
    cash_u: int


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Figures of the whole service."""

    started_at: datetime
    version: str
    mode: Mode
    market: MarketFacts
    stream: StreamReport | None
    scoring: ScoringFacts | None
    portfolio: PortfolioStatus
    signals: SignalQueue | None  # None while the service starts
    tasks: tuple[TaskFacts, ...]
    processes: tuple[ProcessFacts, ...]
