"""Signal with its consensus, effect and outcome; the automation level once it is approved."""

from dataclasses import dataclass, replace
from datetime import datetime

from app.configuration.domain.sections import AutomationMode, SignalSettings
from app.signals.domain.consensus import Consensus, SignalEvaluation
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


def with_consensus(
    signal: Signal,
    verdict: Consensus,
    board_id: str,
    configuration_version: int,
    window: OutcomeWindow,
    at: datetime,
) -> EvaluatedSignal:
    """Apply a consensus: approved, rejected, or failed after too few votes.

    CONDITIONAL is no approval. A consensus is compared with the symbol's outcome in `window`,
    unless the signal is retried. Raises ConflictError(invalid_state_transition) for a signal
    that is not pending.
    """
    begun = signal.to(SignalState.EVALUATING)
    said = f"{verdict.evaluation.value}: {verdict.reason}" if verdict.evaluation else verdict.reason
    after = begun.to(_next_state(verdict), said)
    after = replace(after, attempts=signal.attempts + 1, completed_at=at)
    outcome = None if verdict.evaluation is None else SignalOutcome(window)
    return EvaluatedSignal(after, verdict, board_id, configuration_version, outcome=outcome)


def without_consensus(signal: Signal, reason: str, at: datetime) -> EvaluatedSignal:
    """Fail a signal without data for an evaluation, to be retried."""
    after = signal.to(SignalState.EVALUATING).to(SignalState.FAILED, reason)
    return EvaluatedSignal(replace(after, attempts=signal.attempts + 1, completed_at=at))


def _next_state(verdict: Consensus) -> SignalState:
    if verdict.evaluation is None:
        return SignalState.FAILED
    approved = verdict.evaluation in {SignalEvaluation.APPROVE, SignalEvaluation.STRONG_APPROVE}
    return SignalState.APPROVED if approved else SignalState.REJECTED


def policy_for(signal: Signal, verdict: Consensus, rules: SignalSettings) -> AutomationMode:
    """Automation level of a signal.

    While the skill of every agent is unknown an operator decides: `auto` becomes `propose`.
    """
    wanted = rules.automation_by_type.get(signal.claim.type, rules.automation)
    if wanted is AutomationMode.AUTO and not verdict.is_weighed_by_skill:
        return AutomationMode.PROPOSE
    return wanted


def format_reason(judged: EvaluatedSignal) -> str:
    """Reason of a change for the history: the signal and its verdict."""
    claim = judged.signal.claim
    said = f"signal {judged.signal.signal_id}: {claim.direction.value} by {claim.source}"
    return f"{said}, {judged.signal.reason}"[:500]
