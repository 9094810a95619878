"""What the alert rules look at; None is unknown, which neither raises nor ends an alert."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from app.domain.market import DataSource, DataStatus, ExchangeLink

Correlations = Mapping[tuple[str, str], float]  # known ones only


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """One member of the portfolio."""

    symbol: str
    status: str  # of the contract, in the exchange's words
    is_open: bool
    score: float | None
    performance: float | None  # fraction since inclusion
    is_fresh: bool | None = None


@dataclass(frozen=True, slots=True)
class PortfolioFacts:
    members: tuple[MemberFacts, ...] = ()
    correlations: Correlations = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefusedRecords:
    """Records of one endpoint that were refused for one field."""

    endpoint: str
    field: str
    reason: str
    count: int
    symbols: tuple[str, ...]  # standard ones, as far as they are known


@dataclass(frozen=True, slots=True)
class JobFacts:
    """One background task; `late` in its own intervals, None where it has none or never ran."""

    name: str
    failures: int  # in a row
    last_error: str | None
    late: float | None


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """The service and its exchange."""

    link: ExchangeLink | None = None
    redirected: tuple[str, ...] = ()  # endpoints whose last answer pointed elsewhere
    refused: tuple[RefusedRecords, ...] = ()
    universe_known: bool = False  # whether any list of contracts was seen since the start
    anomaly: str | None = None  # why the newest list is not believed
    odd_status: tuple[str, ...] = ()  # symbols whose contract status nobody knows
    data_source: DataSource = DataSource.SANDBOX
    data_status: DataStatus | None = None  # None before the first fill is complete
    clock_offset_s: float | None = None  # between the exchange's and ours, at least
    jobs: tuple[JobFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything at one moment; `as_of` is the time of the market data."""

    at: datetime
    as_of: datetime
    portfolio: PortfolioFacts = PortfolioFacts()
    system: SystemFacts = SystemFacts()
