"""Events that alerts publish."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.alerts.domain.models import Alert, AlertRule, Resolution
from app.configuration.domain.sections import Severity
from app.foundation.events import EventKind, EventTopic


@dataclass(frozen=True, slots=True)
class AlertRaised:
    """An alert opened, or woke from a snooze."""

    alert_id: str
    rule: AlertRule
    subject: str
    symbols: tuple[str, ...]
    severity: Severity
    value: float | None
    limit: float | None
    message: str
    occurred_at: datetime
    since: datetime | None = None  # start of the condition

    @property
    def symbol(self) -> str | None:
        """Symbol of the alert; None unless it concerns exactly one."""
        return self.symbols[0] if len(self.symbols) == 1 else None


@dataclass(frozen=True, slots=True)
class AlertResolved:
    """An alert ended; `resolved_by` is None unless an operator resolved it."""

    alert_id: str
    rule: AlertRule
    subject: str
    symbols: tuple[str, ...]
    severity: Severity
    resolution: Resolution
    resolved_by: str | None
    message: str
    occurred_at: datetime
    since: datetime | None = None  # start of the condition

    @property
    def symbol(self) -> str | None:
        """Symbol of the alert; None unless it concerned exactly one."""
        return self.symbols[0] if len(self.symbols) == 1 else None


def alert_raised(alert: Alert, at: datetime) -> AlertRaised:
    """Event of an alert that opened at `at`."""
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
        alert.since,
    )


def alert_resolved(alert: Alert, resolution: Resolution, at: datetime) -> AlertResolved:
    """Event of an alert that ended at `at`."""
    return AlertResolved(
        alert.id,
        alert.rule,
        alert.subject,
        alert.symbols,
        alert.severity,
        resolution,
        alert.resolved_by,
        alert.message,
        at,
        alert.since,
    )


EVENTS: Final = (
    EventKind(AlertRaised, "alert_raised", EventTopic.ALERT, subject="symbol"),
    EventKind(AlertResolved, "alert_resolved", EventTopic.ALERT, subject="symbol"),
)
