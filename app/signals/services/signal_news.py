"""Publishes changes of signals as events."""

from collections.abc import Iterable
from datetime import datetime

from app.foundation.sql.unit_of_work import UnitOfWork
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.events import SignalChanged


def publish_signals(unit: UnitOfWork, changed: Iterable[EvaluatedSignal], at: datetime) -> None:
    """Publish the current state of each signal after the commit."""
    for one in changed:
        signal, verdict = one.signal, one.verdict
        evaluation = None if verdict is None else verdict.evaluation
        unit.announce(
            SignalChanged(
                signal_id=signal.signal_id,
                source=signal.claim.source,
                type=signal.claim.type,
                symbol=signal.claim.symbol,
                direction=signal.claim.direction.value,
                state=signal.state.value,
                evaluation=None if evaluation is None else evaluation.value,
                score=None if verdict is None else verdict.score,
                reason=signal.reason,
                occurred_at=at,
            )
        )
