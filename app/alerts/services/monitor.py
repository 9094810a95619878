"""Evaluates the alert rules on schedule and monitors that alerting is alive."""

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
from app.foundation.sql.key_value import KeyValueRepository


async def no_op() -> None:
    """Default callback without effect."""


@dataclass(frozen=True, slots=True)
class AlertScheduler:
    """Evaluates the rules and updates the gauges; `looked` runs after each evaluation."""

    alerts: AlertService
    metrics: Metrics
    looked: Callable[[], Awaitable[None]] = no_op

    async def look(self) -> None:
        """Evaluate once and set the gauges of open alerts."""
        active, _ = await self.alerts.look()
        await self.looked()
        for severity in Severity:
            count = sum(
                alert.severity is severity and alert.state is AlertState.OPEN for alert in active
            )
            self.metrics.alerts_open.labels(severity.value).set(count)


SILENT_S: Final = 120.0  # silence after which alerting itself counts as failed
_PUBLISH_INTERVAL: Final = timedelta(seconds=15)  # of the heartbeat to other processes


class AlertingComponent(StrEnum):
    """Component of alerting with a heartbeat of its own."""

    EVALUATION = "evaluation"  # of the alert rules
    DELIVERY = "delivery"  # a round of the dispatcher, whatever receivers do


@dataclass(slots=True)
class AlertingHeartbeat:
    """Heartbeat of alerting, shared by all processes through the database.

    `interval_s` is the interval of evaluations: a long one extends the allowed silence.
    """

    database: Database
    clock: Clock
    metrics: Metrics
    interval_s: Callable[[], float]
    started_at: datetime
    _seen: dict[AlertingComponent, datetime] = field(default_factory=dict)
    _noted: dict[AlertingComponent, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Evaluated at each scrape: the gauge rises even while this process hangs.
        for part in AlertingComponent:
            age = self.metrics.alerting_silence_seconds.labels(part.value)
            age.set_function(partial(self.age_s, part))

    async def evaluated(self) -> None:
        await self._beat(AlertingComponent.EVALUATION)

    async def delivered(self) -> None:
        await self._beat(AlertingComponent.DELIVERY)

    async def _beat(self, part: AlertingComponent) -> None:
        now = self.clock()
        self._seen[part] = now
        if part in self._noted and now - self._noted[part] < _PUBLISH_INTERVAL:
            return
        try:
            async with self.database.write() as unit:
                await unit.get(KeyValueRepository).put(_key(part), now.isoformat())
        except ServiceError:
            return  # the database reports its own outage
        self._noted[part] = now

    async def look(self) -> None:
        """Read the heartbeats of other processes; a database error keeps the known ones."""
        try:
            async with self.database.read() as unit:
                noted = {
                    part: await unit.get(KeyValueRepository).get(_key(part))
                    for part in AlertingComponent
                }
        except ServiceError:
            return
        for part, text in noted.items():
            if text is not None:
                at = datetime.fromisoformat(text)
                self._seen[part] = max(at, self._seen.get(part, at))

    def seen(self) -> Mapping[AlertingComponent, datetime]:
        """Last heartbeat of each component."""
        return dict(self._seen)

    def age_s(self, part: AlertingComponent) -> float:
        """Seconds since the last heartbeat, at most since the start of this process."""
        last = max(self._seen.get(part, self.started_at), self.started_at)
        return max(0.0, (self.clock() - last).total_seconds())

    def limits_s(self) -> Mapping[AlertingComponent, float]:
        return {
            AlertingComponent.EVALUATION: max(SILENT_S, 2 * self.interval_s()),
            AlertingComponent.DELIVERY: SILENT_S,
        }


def _key(part: AlertingComponent) -> str:
    return f"alerting.{part.value}"
