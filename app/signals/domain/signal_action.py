"""How far an approved signal may go, and what the history says of it."""

from app.configuration.domain.sections import Policy, SignalRules
from app.signals.domain.consensus import Consensus
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import Signal


def policy_for(signal: Signal, verdict: Consensus, rules: SignalRules) -> Policy:
    """How far this signal may go by itself.

    While the skill of no agent is known an operator decides: then `auto` is no more than `propose`.
    """
    wanted = rules.policies.get(signal.claim.type, rules.policy)
    if wanted is Policy.AUTO and not verdict.is_weighed_by_skill:
        return Policy.PROPOSE
    return wanted


def format_reason(judged: EvaluatedSignal) -> str:
    """For the history: which signal and which verdict led to a change."""
    claim = judged.signal.claim
    said = f"signal {judged.signal.signal_id}: {claim.direction.value} by {claim.source}"
    return f"{said}, {judged.signal.reason}"[:500]
