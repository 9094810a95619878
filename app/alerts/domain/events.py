"""Events that alerts publish."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.alerts.domain.models import Alert, AlertRule, Resolution
from app.configuration.domain.sections import Severity
from app.foundation.events import EventKind, Topic


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

    @property
    def symbol(self) -> str | None:
        """The symbol that it is about; None where it is about no single one."""
        return self.symbols[0] if len(self.symbols) == 1 else None


@dataclass(frozen=True, slots=True)
class AlertResolved:
    """An alert ended; `resolved_by` is None where nobody did anything."""

    alert_id: str
    rule: AlertRule
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


EVENTS: Final = (
    EventKind(AlertRaised, "alert_raised", Topic.ALERT, subject="symbol"),
    EventKind(AlertResolved, "alert_resolved", Topic.ALERT, subject="symbol"),
)
