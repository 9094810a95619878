"""What becomes of a signal that was judged, and on what ground it was."""

from dataclasses import dataclass, replace
from datetime import datetime

from app.signals.domain.consensus import Evaluation, Verdict
from app.signals.domain.models import Effect, Signal, SignalState
from app.signals.domain.outcomes import Outcome, Window


@dataclass(frozen=True, slots=True)
class Judged:
    """A signal and, once there is one, its last verdict with what that rests on."""

    signal: Signal
    verdict: Verdict | None = None
    board_id: str | None = None
    configuration_version: int | None = None
    effect: Effect | None = None  # what became of it, once that is decided
    outcome: Outcome | None = None  # what came of its symbol; None without a verdict to hold to it


def settled(
    signal: Signal,
    verdict: Verdict,
    board_id: str,
    configuration_version: int,
    window: Window,
    at: datetime,
) -> Judged:
    """The signal with its verdict: approved, rejected, or failed where too few have voted.

    CONDITIONAL is no approval.

    A verdict is held to what comes of the symbol in `window`, unless it is to be tried again.
    Raises ConflictError(invalid_state_transition) for one that does not wait to be judged.
    """
    begun = signal.to(SignalState.EVALUATING)
    said = f"{verdict.evaluation.value}: {verdict.reason}" if verdict.evaluation else verdict.reason
    after = begun.to(_state(verdict), said)
    after = replace(after, attempts=signal.attempts + 1, settled_at=at)
    outcome = None if verdict.evaluation is None else Outcome(window)
    return Judged(after, verdict, board_id, configuration_version, outcome=outcome)


def unjudged(signal: Signal, reason: str, at: datetime) -> Judged:
    """The signal where nobody can be asked about it: failed, to be tried again."""
    after = signal.to(SignalState.EVALUATING).to(SignalState.FAILED, reason)
    return Judged(replace(after, attempts=signal.attempts + 1, settled_at=at))


def _state(verdict: Verdict) -> SignalState:
    if verdict.evaluation is None:
        return SignalState.FAILED
    approved = verdict.evaluation in {Evaluation.APPROVE, Evaluation.STRONG_APPROVE}
    return SignalState.APPROVED if approved else SignalState.REJECTED
