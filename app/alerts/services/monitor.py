"""Looks at the alert rules every minute and whenever something was decided; counts what is open."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final

from app.alerts.domain.models import AlertState
from app.alerts.services.service import AlertService
from app.configuration.domain.sections import Severity
from app.foundation.errors import ServiceError
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock
from app.foundation.sql.database import Database
from app.foundation.sql.facts import FactRepository


async def unheard() -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class AlertScheduler:
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


SILENT_S: Final = 120.0  # nobody is told anything for so long: that itself has to be seen
_NOTE: Final = timedelta(seconds=15)  # how often it is told to other processes


class AlertingComponent(StrEnum):
    EVALUATION = "evaluation"  # of the alert rules
    DELIVERY = "delivery"  # a round of the courier, whatever receivers do


@dataclass(slots=True)
class AlertingHeartbeat:
    """Each process notes what it does; all see the newest sign of any of them.

    `interval_s` is how often rules are looked at: slower than the usual it is no silence.
    """

    database: Database
    clock: Clock
    metrics: Metrics
    interval_s: Callable[[], float]
    started_at: datetime
    _seen: dict[AlertingComponent, datetime] = field(default_factory=dict)
    _noted: dict[AlertingComponent, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for (
            part
        ) in AlertingComponent:  # asked when it is read: it rises also when everything here hangs
            age = self.metrics.alerting_silence_seconds.labels(part.value)
            age.set_function(partial(self.age_s, part))

    async def evaluated(self) -> None:
        await self._beat(AlertingComponent.EVALUATION)

    async def delivered(self) -> None:
        await self._beat(AlertingComponent.DELIVERY)

    async def _beat(self, part: AlertingComponent) -> None:
        now = self.clock()
        self._seen[part] = now
        if part in self._noted and now - self._noted[part] < _NOTE:
            return
        try:
            async with self.database.write() as unit:
                await unit.get(FactRepository).put(_key(part), now.isoformat())
        except ServiceError:
            return  # that the database is away is told by its own component
        self._noted[part] = now

    async def look(self) -> None:
        """Takes over what other processes have noted; without a database what is known stays."""
        try:
            async with self.database.read() as unit:
                noted = {
                    part: await unit.get(FactRepository).get(_key(part))
                    for part in AlertingComponent
                }
        except ServiceError:
            return
        for part, text in noted.items():
            if text is not None:
                at = datetime.fromisoformat(text)
                self._seen[part] = max(at, self._seen.get(part, at))

    def seen(self) -> Mapping[AlertingComponent, datetime]:
        """The last sign of each part since the service came into being."""
        return dict(self._seen)

    def age_s(self, part: AlertingComponent) -> float:
        """Seconds of silence, at most those that this process has listened."""
        last = max(self._seen.get(part, self.started_at), self.started_at)
        return max(0.0, (self.clock() - last).total_seconds())

    def limits_s(self) -> Mapping[AlertingComponent, float]:
        return {
            AlertingComponent.EVALUATION: max(SILENT_S, 2 * self.interval_s()),
            AlertingComponent.DELIVERY: SILENT_S,
        }


def _key(part: AlertingComponent) -> str:
    return f"alerting.{part.value}"
