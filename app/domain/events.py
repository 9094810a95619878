"""Frozen facts that leave a transaction after its commit."""

from dataclasses import dataclass
from datetime import datetime

from app.domain.configuration import Configuration


@dataclass(frozen=True, slots=True)
class ScoresUpdated:
    """A scoring run was saved."""

    run_id: str
    as_of: datetime
    scored: int
    unavailable: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class PortfolioChanged:
    """A new version of the portfolio was committed; one per event of the change."""

    version: int
    seq: int
    type: str
    symbol: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class PlanCreated:
    """A rebalance was planned and its weights were set."""

    run_id: str
    portfolio_version: int
    total_changes: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """New business settings are in force."""

    settings: Configuration
    occurred_at: datetime
