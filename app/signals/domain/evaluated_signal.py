"""What becomes of a signal that was judged, and on what ground it was."""

from dataclasses import dataclass, replace
from datetime import datetime

from app.signals.domain.consensus import Consensus, SignalEvaluation
from app.signals.domain.models import Signal, SignalEffect, SignalState
from app.signals.domain.outcomes import OutcomeWindow, SignalOutcome


@dataclass(frozen=True, slots=True)
class EvaluatedSignal:
    """A signal and, once there is one, its last verdict with what that rests on."""

    signal: Signal
    verdict: Consensus | None = None
    board_id: str | None = None
    configuration_version: int | None = None
    effect: SignalEffect | None = None  # what became of it, once that is decided
    outcome: SignalOutcome | None = (
        None  # what came of its symbol; None without a verdict to hold to it
    )


def with_consensus(
    signal: Signal,
    verdict: Consensus,
    board_id: str,
    configuration_version: int,
    window: OutcomeWindow,
    at: datetime,
) -> EvaluatedSignal:
    """The signal with its verdict: approved, rejected, or failed where too few have voted.

    CONDITIONAL is no approval.

    A verdict is held to what comes of the symbol in `window`, unless it is to be tried again.
    Raises ConflictError(invalid_state_transition) for one that does not wait to be judged.
    """
    begun = signal.to(SignalState.EVALUATING)
    said = f"{verdict.evaluation.value}: {verdict.reason}" if verdict.evaluation else verdict.reason
    after = begun.to(_state(verdict), said)
    after = replace(after, attempts=signal.attempts + 1, settled_at=at)
    outcome = None if verdict.evaluation is None else SignalOutcome(window)
    return EvaluatedSignal(after, verdict, board_id, configuration_version, outcome=outcome)


def without_consensus(signal: Signal, reason: str, at: datetime) -> EvaluatedSignal:
    """The signal where nobody can be asked about it: failed, to be tried again."""
    after = signal.to(SignalState.EVALUATING).to(SignalState.FAILED, reason)
    return EvaluatedSignal(replace(after, attempts=signal.attempts + 1, settled_at=at))


def _state(verdict: Consensus) -> SignalState:
    if verdict.evaluation is None:
        return SignalState.FAILED
    approved = verdict.evaluation in {SignalEvaluation.APPROVE, SignalEvaluation.STRONG_APPROVE}
    return SignalState.APPROVED if approved else SignalState.REJECTED
