"""Looks at the alert rules every minute: counts what is open and says what opened or ended."""

from dataclasses import dataclass, field

import structlog

from app.domain.alert_settings import Severity
from app.domain.alerts import Alert
from app.services.alerts import AlertService
from app.telemetry.metrics import Metrics

_log = structlog.get_logger("alerts")


@dataclass(slots=True)
class AlertWatch:
    alerts: AlertService
    metrics: Metrics
    _open: frozenset[tuple[str, str]] = field(default_factory=frozenset)

    async def look(self) -> None:
        """One evaluation; each change is one log line."""
        found, _ = await self.alerts.current()
        for severity in Severity:
            count = sum(alert.severity is severity for alert in found)
            self.metrics.alerts_open.labels(severity.value).set(count)
        now = {_key(alert): alert for alert in found}
        for key in sorted(now.keys() - self._open):
            alert = now[key]
            _log.warning("alert_opened", rule=key[0], subject=key[1], severity=alert.severity.value)
        for rule, subject in sorted(self._open - now.keys()):
            _log.info("alert_ended", rule=rule, subject=subject)
        self._open = frozenset(now)


def _key(alert: Alert) -> tuple[str, str]:
    return alert.rule.value, alert.subject
