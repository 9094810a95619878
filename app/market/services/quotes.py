"""One symbol as the market shows it at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataStatus
from app.market.domain.models import Funding
from app.market.domain.symbols import SymbolEntry


@dataclass(frozen=True, slots=True)
class Aged:
    """A value with its age in seconds and the verdict on it."""

    age_s: float | None
    status: DataStatus


@dataclass(frozen=True, slots=True)
class QuoteView:
    """One symbol as the market shows it now; None where nothing is known."""

    entry: SymbolEntry
    last: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    mark: Decimal | None
    index: Decimal | None
    change_24h: Decimal | None
    turnover_24h: Decimal | None
    volume_24h: Decimal | None
    funding_rate: Decimal | None
    predicted_funding_rate: Decimal | None
    funding_interval_ms: int | None
    next_funding: datetime | None
    open_interest_lots: int | None
    open_interest: Decimal | None  # base coins
    spread_bp: float | None
    depth: float | None  # quote currency within 50 bp of mid, thinner side
    settled_funding: tuple[Funding, ...]
    ages: Mapping[Source, Aged]
    told_at: datetime | None  # exchange time of bid and ask; a contract is asked about more rarely
    as_of: datetime | None  # what all of it is known up to; each part has its own age
    status: DataStatus


def spread(bid: Decimal | None, ask: Decimal | None) -> float | None:
    """Basis points of mid; None for a missing, crossed or locked quote."""
    if bid is None or ask is None or not 0 < bid < ask:
        return None
    return float((ask - bid) / (ask + bid) * 20_000)
