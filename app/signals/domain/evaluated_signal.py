"""Signal with its consensus, effect and outcome; the automation level once it is approved."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from app.configuration.domain.sections import AutomationMode, SignalSettings
from app.signals.domain.consensus import Consensus, SignalEvaluation, VerdictSnapshot
from app.signals.domain.models import Signal, SignalEffect, SignalState
from app.signals.domain.outcomes import OutcomeWindow, SignalOutcome


@dataclass(frozen=True, slots=True)
class EvaluatedSignal:
    """Signal with its last consensus, and the board and configuration behind it."""

    signal: Signal
    verdict: Consensus | None = None
    board_id: str | None = None
    configuration_version: int | None = None
    effect: SignalEffect | None = None  # effect on the portfolio, once decided
    outcome: SignalOutcome | None = None  # outcome; None without a consensus to compare
    # Inputs of a consensus that was reached just now.
    snapshot: VerdictSnapshot | None = field(default=None, compare=False, repr=False)


def with_consensus(
    signal: Signal,
    verdict: Consensus,
    board_id: str,
    configuration_version: int,
    window: OutcomeWindow,
    at: datetime,
) -> EvaluatedSignal:
    """Applies a consensus: approved, rejected, or failed after too few votes.

    CONDITIONAL is no approval. A consensus is compared with the symbol's outcome in `window`,
    unless the signal is retried. Raises ConflictError(invalid_state_transition) for a signal
    that is not pending.
    """
    evaluating = signal.transition_to(SignalState.EVALUATING)
    evaluation = verdict.evaluation
    reason = f"{evaluation.value}: {verdict.reason}" if evaluation else verdict.reason
    completed = evaluating.transition_to(_next_state(verdict), reason)
    completed = replace(completed, attempts=signal.attempts + 1, completed_at=at)
    outcome = None if evaluation is None else SignalOutcome(window)
    return EvaluatedSignal(completed, verdict, board_id, configuration_version, outcome=outcome)


def without_consensus(signal: Signal, reason: str, at: datetime) -> EvaluatedSignal:
    """Marks a signal without data for an evaluation as failed; it may be retried."""
    failed = signal.transition_to(SignalState.EVALUATING).transition_to(SignalState.FAILED, reason)
    return EvaluatedSignal(replace(failed, attempts=signal.attempts + 1, completed_at=at))


def _next_state(verdict: Consensus) -> SignalState:
    if verdict.evaluation is None:
        return SignalState.FAILED
    approved = verdict.evaluation in {SignalEvaluation.APPROVE, SignalEvaluation.STRONG_APPROVE}
    return SignalState.APPROVED if approved else SignalState.REJECTED


def automation_for(signal: Signal, verdict: Consensus, rules: SignalSettings) -> AutomationMode:
    """Returns the automation level of a signal.

    While the skill of every agent is unknown, and for a sender that may only propose, an operator
    decides: `auto` becomes `propose`.
    """
    level = rules.automation_by_type.get(signal.claim.type, rules.automation)
    may_act = verdict.is_skill_weighted and not signal.is_propose_only
    if level is AutomationMode.AUTO and not may_act:
        return AutomationMode.PROPOSE
    return level


def format_reason(evaluated: EvaluatedSignal) -> str:
    """Returns the reason of a change for the history: the signal and its verdict."""
    claim = evaluated.signal.claim
    origin = f"signal {evaluated.signal.signal_id}: {claim.direction.value} by {claim.source}"
    return f"{origin}, {evaluated.signal.reason}"[:500]
