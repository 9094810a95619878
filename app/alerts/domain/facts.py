"""Inputs of the alert rules; None is unknown, which neither raises nor ends an alert."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from app.foundation.data_status import DataSource, DataStatus
from app.market.domain.models import ExchangeLink
from app.security.domain.bursts import Burst

Correlations = Mapping[tuple[str, str], float]  # known ones only


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """One member of the portfolio."""

    symbol: str
    status: str  # of the contract, as the exchange names it
    is_open: bool
    score: float | None
    performance: float | None  # fraction since inclusion
    is_fresh: bool | None = None
    is_delisted: bool | None = None  # contract closed, settled or delisted
    is_ending: bool | None = None  # contract listed, end announced
    former_score: float | None = None  # `alerts.score_drop_runs` boards ago
    drawdown: float | None = None  # since inclusion, positive
    excess: float | None = None  # percentage points of weight beyond its bounds; 0 within
    funding: float | None = None  # of the running interval, as a fraction per 8 hours
    jump: float | None = None  # since the last daily close, in daily standard deviations
    candidate: str | None = None  # candidate of a confirmed replacement
    is_doubted: bool | None = None  # quarantined or without trades
    doubt: str | None = None  # why


@dataclass(frozen=True, slots=True)
class ExitFacts:
    """Removal or replacement of a member; `event` is its number in the history."""

    event: int
    symbol: str
    performance: float | None  # fraction from the inclusion to the exit, by price
    at: datetime


@dataclass(frozen=True, slots=True)
class PortfolioFacts:
    """Inputs about the portfolio as a whole."""

    members: tuple[MemberFacts, ...] = ()
    correlations: Correlations = field(default_factory=dict)  # on the basis of the settings
    raw_correlations: Correlations = field(default_factory=dict)
    was_formed: bool = False  # has or had a member
    sectors: Mapping[str, float] = field(default_factory=dict)  # shares of the invested weight
    value_at_risk: float | None = None  # 95 %, one day, as a fraction of equity
    rebalanced: tuple[int, datetime] | None = None  # event and time of the last one
    exits: tuple[ExitFacts, ...] = ()  # recent ones, some may be over


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
    universe_known: bool = False  # a list of contracts arrived since the start
    anomaly: str | None = None  # reason to distrust the newest list
    odd_status: tuple[str, ...] = ()  # symbols with an unknown contract status
    data_source: DataSource = DataSource.SANDBOX
    data_status: DataStatus | None = None  # None before the first fill is complete
    clock_offset_s: float | None = None  # lower bound of the offset to the exchange
    jobs: tuple[JobFacts, ...] = ()
    drifted: tuple[str, ...] | None = None  # other processes with different code or settings
    bursts: tuple[Burst, ...] = ()  # of failed authentications, some may be over
    recoveries: tuple[tuple[str, str, datetime], ...] = ()  # rule, subject and end of its alert


@dataclass(frozen=True, slots=True)
class Facts:
    """All inputs at one moment; `as_of` is the time of the market data."""

    at: datetime
    as_of: datetime
    portfolio: PortfolioFacts = PortfolioFacts()
    system: SystemFacts = SystemFacts()
