"""How far an approved signal may go, and what the history says of it."""

from app.configuration.domain.sections import AutomationMode, SignalSettings
from app.signals.domain.consensus import Verdict
from app.signals.domain.evaluated_signal import Judged
from app.signals.domain.models import Signal


def policy_for(signal: Signal, verdict: Verdict, rules: SignalSettings) -> AutomationMode:
    """How far this signal may go by itself.

    While the skill of no agent is known an operator decides: then `auto` is no more than `propose`.
    """
    wanted = rules.automation_by_type.get(signal.claim.type, rules.automation)
    if wanted is AutomationMode.AUTO and not verdict.is_weighed_by_skill:
        return AutomationMode.PROPOSE
    return wanted


def reason_of(judged: Judged) -> str:
    """For the history: which signal and which verdict led to a change."""
    claim = judged.signal.claim
    said = f"signal {judged.signal.signal_id}: {claim.direction.value} by {claim.source}"
    return f"{said}, {judged.signal.reason}"[:500]
