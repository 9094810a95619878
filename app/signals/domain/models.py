"""Signals: the claim of a source about a symbol, and its life cycle."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from app.configuration.domain.sections import AutomationMode, SignalSettings
from app.foundation.errors import Code, ConflictError, RefusedError
from app.portfolio.domain.proposals import MembershipMove

# Clocks of sources may run slightly ahead.
MAX_CLOCK_SKEW: Final = timedelta(seconds=5)
TIMEFRAME: Final = "timeframe"  # the only field of `SignalClaim.data` in use
MAX_TIMEFRAME: Final = timedelta(days=90)
_TIMEFRAME: Final = re.compile(r"([1-9][0-9]{0,4})([mhdw])")  # 15m, 4h, 1d, 2w
_UNITS: Final[Mapping[str, timedelta]] = MappingProxyType(
    {
        "m": timedelta(minutes=1),
        "h": timedelta(hours=1),
        "d": timedelta(days=1),
        "w": timedelta(weeks=1),
    }
)


class Direction(StrEnum):
    BUY = "BUY"
    SELL = "SELL"
    NEUTRAL = "NEUTRAL"


class SignalState(StrEnum):
    RECEIVED = "received"
    VALIDATED = "validated"  # waits for its evaluation
    EVALUATING = "evaluating"
    APPROVED = "approved"
    APPLIED = "applied"  # with an effect on the portfolio
    REJECTED = "rejected"
    EXPIRED = "expired"
    FAILED = "failed"  # could not be evaluated; may be retried


_S = SignalState
# Allowed transitions; a state without one is final.
NEXT: Final[Mapping[SignalState, frozenset[SignalState]]] = MappingProxyType(
    {
        _S.RECEIVED: frozenset({_S.VALIDATED, _S.REJECTED}),
        _S.VALIDATED: frozenset({_S.EVALUATING, _S.EXPIRED}),
        _S.EVALUATING: frozenset({_S.APPROVED, _S.REJECTED, _S.EXPIRED, _S.FAILED}),
        _S.APPROVED: frozenset({_S.APPLIED, _S.EXPIRED}),
        _S.FAILED: frozenset({_S.VALIDATED, _S.EXPIRED}),
        _S.APPLIED: frozenset(),
        _S.REJECTED: frozenset(),
        _S.EXPIRED: frozenset(),
    }
)
PENDING: Final = frozenset({_S.RECEIVED, _S.VALIDATED, _S.EVALUATING})


@dataclass(frozen=True, slots=True)
class SignalClaim:
    """Claim of a source; `symbol` is the standard spelling, None for the whole market."""

    source: str
    type: str
    strength: float  # 0..1
    confidence: float  # 0..1
    symbol: str | None = None
    direction: Direction = Direction.NEUTRAL
    data: Mapping[str, Any] | None = None  # JSON of the source
    source_id: str | None = None  # id of the signal at its source
    claimed_at: datetime | None = None
    expires_at: datetime | None = None  # None: after the configured time

    @property
    def timeframe(self) -> timedelta | None:
        """Horizon in the source's data; None without a readable one."""
        text = None if self.data is None else self.data.get(TIMEFRAME)
        match = _TIMEFRAME.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            return None
        duration = int(match[1]) * _UNITS[match[2]]
        return duration if duration <= MAX_TIMEFRAME else None

    @property
    def unused_fields(self) -> tuple[str, ...]:
        """Names of data fields that the service does not use."""
        used = set() if self.timeframe is None else {TIMEFRAME}
        return tuple(f"signal_data.{name}" for name in sorted({*(self.data or ())} - used))

    def has_same_content(self, other: "SignalClaim") -> bool:
        """True if a second delivery has the content of the first one."""
        return self == other


@dataclass(frozen=True, slots=True)
class Signal:
    """Claim with its life cycle; fields of later states are None."""

    signal_id: str
    claim: SignalClaim
    state: SignalState
    received_at: datetime
    expires_at: datetime
    attempts: int = 0  # number of evaluation attempts
    completed_at: datetime | None = None  # time when the signal left the queue
    reason: str | None = None  # readable reason of the state
    posted_by: str | None = None  # actor that has sent it; None before this was recorded
    is_propose_only: bool = False  # its sender may cause no change without an approval

    @property
    def is_pending(self) -> bool:
        return self.state in PENDING

    def transition_to(self, state: SignalState, reason: str | None = None) -> "Signal":
        """Returns the signal in `state`. Raises ConflictError(invalid_state_transition)."""
        if state not in NEXT[self.state]:
            raise ConflictError(
                Code.INVALID_STATE_TRANSITION,
                f"A signal that is {self.state.value} cannot become {state.value}.",
                facts={"state": self.state.value},
            )
        return replace(self, state=state, reason=reason)

    def expire_if_due(self, now: datetime) -> "Signal":
        """Returns the signal, expired if its expiry has passed."""
        if now < self.expires_at or SignalState.EXPIRED not in NEXT[self.state]:
            return self
        return replace(
            self.transition_to(SignalState.EXPIRED, "expired"), completed_at=self.expires_at
        )

    def requeue(self) -> "Signal":
        """Returns a failed signal to the queue."""
        return replace(self.transition_to(SignalState.VALIDATED), completed_at=None)


def receive_signal(
    signal_id: str,
    claim: SignalClaim,
    now: datetime,
    rules: SignalSettings,
    *,
    is_propose_only: bool = False,
) -> Signal:
    """Creates a signal: in the queue, or rejected below the thresholds.

    Raises RefusedError: signal_expired after its expiry; validation_failed for a claim from the
    future, or with an expiry before its own time.
    """
    if claim.claimed_at is not None and claim.claimed_at > now + MAX_CLOCK_SKEW:
        raise RefusedError(
            Code.VALIDATION_FAILED,
            "`signal_timestamp` must not be in the future.",
            field="signal_timestamp",
        )
    starts_at = now if claim.claimed_at is None else claim.claimed_at
    default = starts_at + timedelta(seconds=rules.ttl_s)
    expires_at = default if claim.expires_at is None else claim.expires_at
    if claim.claimed_at is not None and expires_at <= claim.claimed_at:
        raise RefusedError(
            Code.VALIDATION_FAILED,
            "`expiry_timestamp` must be after the time of the signal.",
            field="expiry_timestamp",
        )
    if expires_at <= now:
        raise RefusedError(
            Code.SIGNAL_EXPIRED, "The signal has already expired.", field="expiry_timestamp"
        )
    received = Signal(
        signal_id,
        claim,
        SignalState.RECEIVED,
        received_at=now,
        expires_at=expires_at,
        is_propose_only=is_propose_only,
    )
    for name, value, minimum in (
        ("strength", claim.strength, rules.min_strength),
        ("confidence", claim.confidence, rules.min_confidence),
    ):
        if value < minimum:
            reason = f"its {name} {value:g} is below {minimum:g}"
            return replace(received.transition_to(SignalState.REJECTED, reason), completed_at=now)
    if claim.symbol is None:
        reason = "it has no symbol to evaluate"
        return replace(received.transition_to(SignalState.REJECTED, reason), completed_at=now)
    return received.transition_to(SignalState.VALIDATED)


@dataclass(frozen=True, slots=True)
class MembershipStep:
    """Membership change that a signal requests."""

    move: MembershipMove
    symbol: str  # symbol to add or remove
    old_symbol: str | None = None  # symbol to replace


@dataclass(frozen=True, slots=True)
class SignalEffect:
    """Effect of an approved signal; `note` gives the reason of a missing one."""

    signal_id: str
    automation: AutomationMode  # automation level at the decision
    step: MembershipStep | None
    note: str | None
    at: datetime
    proposal_id: str | None = None
    version: int | None = None  # resulting version of the portfolio
