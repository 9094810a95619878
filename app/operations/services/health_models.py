"""What the components say of themselves, and what health and status make of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.market.domain.models import DataSource, DataStatus
from app.market.domain.stream import StreamFacts
from app.market.services.service_mode import Mode
from app.operations.services.process_metrics import Level, Vitals
from app.signals.domain.track_record import SignalQueue


class ComponentState(StrEnum):
    UP = "up"
    STARTING = "starting"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """One component: its state, since when it is in it, why, and what happens next."""

    name: str
    state: ComponentState
    since: datetime | None
    cause: str | None
    detail: str | None
    last_success: datetime | None
    next_step: str | None


@dataclass(frozen=True, slots=True)
class Health:
    status: ComponentState
    mode: Mode
    components: tuple[ComponentHealth, ...]
    levels: tuple[Level, ...]
    vitals: Vitals
    data_source: DataSource
    data_status: DataStatus
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """What the market data service says of itself."""

    data_source: DataSource
    data_status: DataStatus
    as_of: datetime | None
    contracts: int
    eligible: int
    stale_symbols: int
    stage: str  # the step of the first fill that runs, or "complete"
    done: int
    total: int
    ages_s: Mapping[str, float | None]  # source -> age of its oldest fresh-kept value
    is_clock_safe: bool = True  # the exchange's time is known well enough to decide by


@dataclass(frozen=True, slots=True)
class ReferenceReport:
    """How the prices of another exchange come in; `failed` is the code of the last asking."""

    name: str
    is_owner: bool  # else another process asks it
    is_told: bool  # its stream tells them
    has_answered: bool
    failed: str | None
    every_s: float


@dataclass(frozen=True, slots=True)
class ScoringFacts:
    run_id: str
    as_of: datetime
    calculated_at: datetime
    scored: int
    unavailable: int
    data_status: DataStatus


@dataclass(frozen=True, slots=True)
class PortfolioFacts:
    version: int
    size: int
    max_size: int
    cash_u: int


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One background task: when it last succeeded and what went wrong since.

    `silent_s` is how long it has given no sign of life, `limit_s` how long it may; None: it waits
    for what its first sign needs. `failed_until` is set while it counts as failed, after so many
    `crashes` by errors that nobody foresaw.
    """

    name: str
    running: bool
    last_success: datetime | None
    last_error: str | None
    failures: int
    silent_s: float = 0.0
    limit_s: float | None = None
    crashes: int = 0
    failed_until: datetime | None = None

    @property
    def is_silent(self) -> bool:
        """For so long that it is likely to be ended soon."""
        return self.limit_s is not None and self.silent_s > self.limit_s / 2


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process on the database that several share, as it was last heard of."""

    name: str
    role: str | None
    version: str | None
    is_self: bool
    feed_epoch: int | None  # of the feed that it owns
    agrees: bool  # it runs with the same code and settings as this one


@dataclass(frozen=True, slots=True)
class StreamReport:
    """How the market comes in, and what the stream does in this process."""

    is_owner: bool  # of the feed; who is not hears nothing itself
    is_streaming: bool  # else it is asked for
    was_streaming: bool  # at some time since this process owns it
    facts: StreamFacts


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    started_at: datetime
    version: str
    mode: Mode
    market: MarketFacts
    stream: StreamReport | None
    scoring: ScoringFacts | None
    portfolio: PortfolioFacts
    signals: SignalQueue | None  # None where nobody was asked
    tasks: tuple[TaskFacts, ...]
    processes: tuple[ProcessFacts, ...]
