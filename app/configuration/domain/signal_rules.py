"""Settings of signals: what is taken, how it is judged, and how far a verdict leads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from app.configuration.domain.fields import setting
from app.configuration.domain.policy import Policy

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class SignalRules:
    """Thresholds are 0..1; an age is in seconds."""

    min_strength: float = setting(0.5, 0.0, 1.0)  # below it a signal is rejected unjudged
    min_confidence: float = setting(0.5, 0.0, 1.0)
    min_consensus: float = setting(0.6, 0.5, 1.0)  # pooled probability that it is right
    strong_consensus: float = setting(0.75, 0.5, 1.0)
    quorum: float = setting(0.5, 0.0, 1.0)  # share of the agents' weight that must have voted
    horizon_days: float = setting(1.0, 0.1, 90.0)  # to prove right in; or its own timeframe
    min_outcomes: int = setting(50, 1, 100_000)  # from which on skill is known
    veto_volatility: float = setting(3.0, 0.1, 20.0)  # annualised; above it risk forbids buying
    veto_drawdown: float = setting(0.8, 0.0, 1.0)  # a fall within 90 days beyond which as well
    expires_after: int = setting(_DAY_S, 60, 30 * _DAY_S)  # where the source names no end
    policy: Policy = Policy.PROPOSE  # how far an approved signal may go by itself
    # The same for single types of signals, in the words of their sources.
    policies: Mapping[str, Policy] = field(default_factory=lambda: MappingProxyType({}))
    source_strength: float = setting(0.6, 0.0, 1.0)  # below it our own sources say nothing
    source_confidence: float = setting(0.7, 0.0, 1.0)
    # Our own sources by name; one that is not named is on.
    sources: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    agent_timeout: float = setting(2.0, 0.01, 60.0)  # seconds for agents from outside; then none
    most_pending: int = setting(10_000, 1, 1_000_000)  # beyond it intake answers 429
