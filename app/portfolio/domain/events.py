"""Events that the portfolio publishes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.foundation.events import EventKind, EventTopic


@dataclass(frozen=True, slots=True)
class PortfolioChanged:
    """A new version of the portfolio was committed; one per event of the change."""

    version: int
    seq: int
    type: str
    symbol: str | None
    occurred_at: datetime
    other_symbol: str | None = None
    reason: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class PlanCreated:
    """A rebalance was planned and its weights were set."""

    run_id: str
    portfolio_version: int
    total_changes: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class ProposalOpened:
    """An action waits for an operator."""

    proposal_id: str
    kind: str
    subject: str  # the member that would leave, or "portfolio"
    portfolio_version: int
    expires_at: datetime
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class ProposalDecided:
    """A proposal has ended: approved, declined, expired or superseded."""

    proposal_id: str
    kind: str
    subject: str
    state: str
    decided_by: str
    occurred_at: datetime


EVENTS: Final = (
    EventKind(PortfolioChanged, "portfolio_changed", EventTopic.PORTFOLIO_CHANGE, subject="symbol"),
    EventKind(PlanCreated, "plan_created", EventTopic.REBALANCE),
    EventKind(ProposalOpened, "proposal_opened", EventTopic.REBALANCE),
    EventKind(ProposalDecided, "proposal_decided", EventTopic.REBALANCE),
)
