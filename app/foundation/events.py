"""Frozen facts that leave a transaction after its commit; `event_codec` says how they are kept."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.alerts.domain.models import Alert, Resolution, Rule
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Severity
from app.foundation.decimal_math import to_millionths
from app.foundation.jobs import JobState
from app.scoring.domain.board import Board


@dataclass(frozen=True, slots=True)
class ScoreChanged:
    """A symbol's score is another one than on the board before; None is "unavailable"."""

    run_id: str
    symbol: str
    old_score: float | None
    new_score: float | None
    rank: int | None
    calculated_at: datetime

    @property
    def change(self) -> float | None:
        """New minus old; None unless both are known."""
        if self.old_score is None or self.new_score is None:
            return None
        return self.new_score - self.old_score


def score_changes(before: Board | None, after: Board) -> tuple[ScoreChanged, ...]:
    """Who scores otherwise on `after` than on `before`, by symbol; without `before` all scores."""
    old = {} if before is None else {card.symbol: card.composite for card in before.cards}
    new = {card.symbol: card for card in after.cards}
    was = {symbol: _rounded(score) for symbol, score in old.items()}
    now = {card.symbol: _rounded(card.composite) for card in after.cards}
    return tuple(
        ScoreChanged(
            run_id=after.run_id,
            symbol=symbol,
            old_score=old.get(symbol),
            new_score=new[symbol].composite if symbol in new else None,
            rank=new[symbol].rank if symbol in new else None,
            calculated_at=after.calculated_at,
        )
        for symbol in sorted(old.keys() | new.keys())
        if was.get(symbol) != now.get(symbol)
    )


def _rounded(score: float | None) -> int | None:
    return None if score is None else to_millionths(score)


@dataclass(frozen=True, slots=True)
class ScoresUpdated:
    """A scoring run was saved."""

    run_id: str
    as_of: datetime
    scored: int
    unavailable: int
    duration_s: float
    calculated_at: datetime
    changes: tuple[ScoreChanged, ...] = ()
    is_provisional: bool = False  # shown, never decided on: it tells of no change of a score


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


@dataclass(frozen=True, slots=True)
class SignalChanged:
    """A signal was taken up or has left the queue; `evaluation` is None where nobody judged it."""

    signal_id: str
    source: str
    type: str
    symbol: str | None
    direction: str
    state: str
    evaluation: str | None
    score: float | None
    reason: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class SignalOutcomesBooked:
    """What came of so many signals is on record: beat the median, did not, or is not known."""

    beat: int
    missed: int
    unknown: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """New business settings are in force."""

    settings: Configuration
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class AlertRaised:
    """An alert opened, or woke from a snooze."""

    alert_id: str
    rule: Rule
    subject: str
    symbols: tuple[str, ...]
    severity: Severity
    value: float | None
    limit: float | None
    message: str
    occurred_at: datetime

    @property
    def symbol(self) -> str | None:
        """The symbol that it is about; None where it is about no single one."""
        return self.symbols[0] if len(self.symbols) == 1 else None


@dataclass(frozen=True, slots=True)
class AlertResolved:
    """An alert ended; `resolved_by` is None where nobody did anything."""

    alert_id: str
    rule: Rule
    subject: str
    symbols: tuple[str, ...]
    severity: Severity
    resolution: Resolution
    resolved_by: str | None
    message: str
    occurred_at: datetime

    @property
    def symbol(self) -> str | None:
        """The symbol that it was about; None where it was about no single one."""
        return self.symbols[0] if len(self.symbols) == 1 else None


class JobChange(StrEnum):
    STARTED = "started"  # also when another process has taken it up
    PROGRESS = "progress"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job has begun, has come further or has ended; `error` is a stable code."""

    job_id: str
    kind: str
    change: JobChange
    state: JobState
    step: str | None
    progress: float
    error: str | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class ModeChanged:
    """The service decides more or less than before; `cause` is a stable word."""

    was: str
    mode: str
    cause: str
    stale_symbols: int
    occurred_at: datetime


def alert_raised(alert: Alert, at: datetime) -> AlertRaised:
    return AlertRaised(
        alert.id,
        alert.rule,
        alert.subject,
        alert.symbols,
        alert.severity,
        alert.value,
        alert.limit,
        alert.message,
        at,
    )


def alert_resolved(alert: Alert, how: Resolution, at: datetime) -> AlertResolved:
    return AlertResolved(
        alert.id,
        alert.rule,
        alert.subject,
        alert.symbols,
        alert.severity,
        how,
        alert.resolved_by,
        alert.message,
        at,
    )
