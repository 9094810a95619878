"""Automation level of an approved signal, and its reason in the history."""

from app.configuration.domain.sections import AutomationMode, SignalSettings
from app.signals.domain.consensus import Consensus
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Signal


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
