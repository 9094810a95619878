"""Evaluates the alert rules on schedule and monitors that alerting is alive."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Final

from app.alerts.domain.models import AlertState
from app.alerts.services.service import AlertService
from app.configuration.domain.sections import Severity
from app.foundation.errors import ServiceError
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock, Monotonic
from app.foundation.sql.database import Database
from app.foundation.sql.key_value import KeyValueRepository


async def do_nothing() -> None:
    """Default callback without effect."""


@dataclass(frozen=True, slots=True)
class AlertScheduler:
    """Evaluates the rules and updates the gauges, then calls `after_evaluation`."""

    alerts: AlertService
    metrics: Metrics
    after_evaluation: Callable[[], Awaitable[None]] = do_nothing

    async def evaluate(self) -> None:
        """Evaluates once and sets the gauges of open alerts."""
        active, _ = await self.alerts.evaluate()
        await self.after_evaluation()
        for severity in Severity:
            count = sum(
                alert.severity is severity and alert.state is AlertState.OPEN for alert in active
            )
            self.metrics.alerts_open.labels(severity.value).set(count)


SILENT_S: Final = 120.0  # silence after which alerting itself counts as failed
_PUBLISH_INTERVAL_S: Final = 15.0  # of the heartbeat to other processes


class AlertingComponent(StrEnum):
    """Component of alerting with a heartbeat of its own."""

    EVALUATION = "evaluation"  # of the alert rules
    DELIVERY = "delivery"  # a round of the dispatcher, whatever receivers do


@dataclass(slots=True)
class AlertingHeartbeat:
    """Heartbeat of alerting, shared by all processes through the database.

    `interval_s` is the interval of evaluations; a long one extends the allowed silence. Ages are
    monotonic: a step of the wall clock neither makes alerting silent nor hides that it is. Only the
    age of the first heartbeat read from the database is that of the wall clock.
    """

    database: Database
    clock: Clock
    metrics: Metrics
    interval_s: Callable[[], float]
    started_at: datetime
    monotonic: Monotonic = time.monotonic
    _seen: dict[AlertingComponent, tuple[datetime, float]] = field(default_factory=dict)
    _published: dict[AlertingComponent, float] = field(default_factory=dict)
    _stored: dict[AlertingComponent, str] = field(default_factory=dict)  # last known of each
    _started_s: float = field(init=False)
    _looked_s: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self._started_s = self.monotonic()
        # Evaluated at each scrape, so that the gauge rises even while this process hangs.
        for component in AlertingComponent:
            age = self.metrics.alerting_silence_seconds.labels(component.value)
            age.set_function(partial(self.age_s, component))

    async def evaluated(self) -> None:
        await self._beat(AlertingComponent.EVALUATION)

    async def delivered(self) -> None:
        await self._beat(AlertingComponent.DELIVERY)

    async def _beat(self, component: AlertingComponent) -> None:
        at, now = self.clock(), self.monotonic()
        self._seen[component] = at, now
        if component in self._published and now - self._published[component] < _PUBLISH_INTERVAL_S:
            return
        try:
            async with self.database.write() as unit:
                await unit.get(KeyValueRepository).put(_fact_key(component), at.isoformat())
        except ServiceError:
            return  # database outages are reported elsewhere
        self._published[component], self._stored[component] = now, at.isoformat()

    async def refresh(self) -> None:
        """Reads the heartbeats of other processes; a database error leaves the known ones."""
        try:
            async with self.database.read() as unit:
                stored = {
                    component: await unit.get(KeyValueRepository).get(_fact_key(component))
                    for component in AlertingComponent
                }
        except ServiceError:
            return
        now, since_look_s = self.monotonic(), self.monotonic() - self._looked_s
        self._looked_s = now
        for component, text in stored.items():
            if text is None or text == self._stored.get(component):
                continue
            at = datetime.fromisoformat(text)
            # It came since the last look, whatever the wall clock says.
            age_s = min(max(0.0, (self.clock() - at).total_seconds()), since_look_s)
            self._stored[component] = text
            if component not in self._seen or now - age_s > self._seen[component][1]:
                self._seen[component] = at, now - age_s

    def seen(self) -> Mapping[AlertingComponent, datetime]:
        """Returns the last heartbeat of each component."""
        return {component: at for component, (at, _) in self._seen.items()}

    def age_s(self, component: AlertingComponent) -> float:
        """Seconds since the last heartbeat, at most since the start of this process."""
        last_s = self._seen[component][1] if component in self._seen else self._started_s
        return self.monotonic() - max(last_s, self._started_s)

    def limits_s(self) -> Mapping[AlertingComponent, float]:
        return {
            AlertingComponent.EVALUATION: max(SILENT_S, 2 * self.interval_s()),
            AlertingComponent.DELIVERY: SILENT_S,
        }


def _fact_key(component: AlertingComponent) -> str:
    return f"alerting.{component.value}"
