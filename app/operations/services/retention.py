"""Deletes data older than its retention; history, intents and booked trades stay."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from app.alerts.services.notifications import NotificationService
from app.alerts.services.service import AlertService
from app.configuration.domain.sections import RetentionSettings
from app.configuration.services.current import ConfigurationChanges
from app.foundation.decision_log import DecisionInputs
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.job_service import JobService
from app.foundation.sql.database import UnitOfWork
from app.operations.services.event_stream import EventStream
from app.portfolio.services.rebalance_runs import RebalanceRuns
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.rebalance_runs import RebalanceRunRepository
from app.scoring.domain.board_retention import StoredRun
from app.scoring.services.board_retention import BoardRetention
from app.security.services.audit import SecurityAudit
from app.signals.services.service import SignalService
from app.signals.storage.signals import SignalEffectRepository


@dataclass(frozen=True, slots=True)
class Retention:
    """Sweeps one kind of data at a time; a repeated sweep finds nothing more."""

    configuration: ConfigurationChanges
    commands: IdempotentExecutor
    stream: EventStream
    notifications: NotificationService
    alerts: AlertService
    jobs: JobService
    rebalance_runs: RebalanceRuns
    signals: SignalService
    boards: BoardRetention
    security: SecurityAudit
    decisions: DecisionInputs

    async def sweep(self, kind: str) -> int:
        """Deletes rows of a kind of SWEEPS by the current settings; returns their number."""
        settings = await self.configuration.current()
        return await SWEEPS[kind](self, settings.retention)


def _days(number: int) -> timedelta:
    return timedelta(days=number)


Sweep = Callable[[Retention, RetentionSettings], Awaitable[int]]
SWEEPS: Final[Mapping[str, Sweep]] = MappingProxyType(
    {
        "idempotency_keys": lambda all_, _: all_.commands.forget_old(),
        "events": lambda all_, _: all_.stream.forget_old(),
        "notifications": lambda all_, rules: all_.notifications.delete_old(
            _days(rules.notifications_days)
        ),
        "alerts": lambda all_, rules: all_.alerts.delete_old(_days(rules.alerts_days)),
        "jobs": lambda all_, rules: all_.jobs.forget_old(_days(rules.jobs_days)),
        "rebalance_runs": lambda all_, rules: all_.rebalance_runs.delete_old(
            _days(rules.rebalance_runs_days)
        ),
        "boards": lambda all_, rules: all_.boards.delete_old(rules),
        "security_events": lambda all_, rules: all_.security.delete_old(
            _days(rules.security_events_days)
        ),
        "decision_inputs": lambda all_, rules: all_.decisions.delete_old(
            _days(rules.decision_inputs_days)
        ),
        "signals": lambda all_, rules: all_.signals.delete_old(_days(rules.signals_days)),
    }
)


async def find_decided_boards(unit: UnitOfWork, runs: Sequence[StoredRun]) -> frozenset[str]:
    """Returns the ids of runs that a stored decision used.

    Decisions are events of the portfolio history, rebalance runs, and executed signals.
    """
    if not runs:
        return frozenset()
    since = runs[0].calculated_at
    hashes = await unit.get(HistoryRepository).input_hashes(since)
    by_hash = {run.run_id for run in runs if run.input_hash in hashes}
    by_rebalance = await unit.get(RebalanceRunRepository).board_ids(since)
    by_signal = await unit.get(SignalEffectRepository).board_ids(since)
    return frozenset(by_hash | by_rebalance | by_signal) & {run.run_id for run in runs}
