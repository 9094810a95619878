"""Looks at the alert rules every minute and whenever something was decided; counts what is open."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.alerts.domain.models import AlertState
from app.alerts.services.service import AlertService
from app.configuration.domain.sections import Severity
from app.foundation.metrics import Metrics


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
