"""Looks at the alert rules every minute and whenever something was decided; counts what is open."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.domain.alert_settings import Severity
from app.domain.alerts import AlertState
from app.services.alerts import AlertService
from app.telemetry.metrics import Metrics


async def unheard() -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class AlertWatch:
    """`looked` is told of each evaluation."""

    alerts: AlertService
    metrics: Metrics
    looked: Callable[[], Awaitable[None]] = unheard

    async def look(self) -> None:
        """One evaluation; the gauges say what it left open."""
        active, _ = await self.alerts.look()
        await self.looked()
        for severity in Severity:
            count = sum(
                alert.severity is severity and alert.state is AlertState.OPEN for alert in active
            )
            self.metrics.alerts_open.labels(severity.value).set(count)
