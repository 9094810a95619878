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
AHEAD: Final = timedelta(seconds=5)
TIMEFRAME: Final = "timeframe"  # the only field of `SignalClaim.data` in use
LONGEST_TIMEFRAME: Final = timedelta(days=90)
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
    said_at: datetime | None = None
    expires_at: datetime | None = None  # None: after the configured time

    @property
    def timeframe(self) -> timedelta | None:
        """Horizon in the source's data; None without a readable one."""
        given = None if self.data is None else self.data.get(TIMEFRAME)
        found = _TIMEFRAME.fullmatch(given) if isinstance(given, str) else None
        if found is None:
            return None
        lasts = int(found[1]) * _UNITS[found[2]]
        return lasts if lasts <= LONGEST_TIMEFRAME else None

    @property
    def unused_fields(self) -> tuple[str, ...]:
        """Names of data fields without a use here."""
        used = set() if self.timeframe is None else {TIMEFRAME}
        return tuple(f"signal_data.{name}" for name in sorted({*(self.data or ())} - used))

    def same_content(self, other: "SignalClaim") -> bool:
        """Whether a second delivery has the content of the first one."""
        return self == other


@dataclass(frozen=True, slots=True)
class Signal:
    """Claim with its life cycle; fields of later states are None."""

    signal_id: str
    claim: SignalClaim
    state: SignalState
    received_at: datetime
    expires_at: datetime
    attempts: int = 0  # number of evaluations tried
    completed_at: datetime | None = None  # time when it left the queue
    reason: str | None = None  # readable reason of the state

    @property
    def is_pending(self) -> bool:
        return self.state in PENDING

    def to(self, state: SignalState, reason: str | None = None) -> "Signal":
        """Move to another state; raises ConflictError(invalid_state_transition) if not allowed."""
        if state not in NEXT[self.state]:
            raise ConflictError(
                Code.INVALID_STATE_TRANSITION,
                f"A signal that is {self.state.value} cannot become {state.value}.",
                facts={"state": self.state.value},
            )
        return replace(self, state=state, reason=reason)

    def expired(self, now: datetime) -> "Signal":
        """The signal, expired if its time is over."""
        if now < self.expires_at or SignalState.EXPIRED not in NEXT[self.state]:
            return self
        return replace(
            self.to(SignalState.EXPIRED, "its time was over"), completed_at=self.expires_at
        )

    def again(self) -> "Signal":
        """The failed signal, back in the queue."""
        return replace(self.to(SignalState.VALIDATED), completed_at=None)


def receive_signal(
    signal_id: str, claim: SignalClaim, now: datetime, rules: SignalSettings
) -> Signal:
    """New signal: in the queue, or rejected below the thresholds.

    Raises RefusedError: signal_expired for one that is already over; validation_failed for one
    from the future, or one that ends before its own time.
    """
    if claim.said_at is not None and claim.said_at > now + AHEAD:
        raise RefusedError(Code.VALIDATION_FAILED, "The signal's time lies in the future.")
    begun = now if claim.said_at is None else claim.said_at
    default = begun + timedelta(seconds=rules.ttl_s)
    ends = default if claim.expires_at is None else claim.expires_at
    if claim.said_at is not None and ends <= claim.said_at:
        raise RefusedError(Code.VALIDATION_FAILED, "The signal ends before it was said.")
    if ends <= now:
        raise RefusedError(Code.SIGNAL_EXPIRED, "The signal's time is over already.")
    came = Signal(signal_id, claim, SignalState.RECEIVED, received_at=now, expires_at=ends)
    for name, given, least in (
        ("strength", claim.strength, rules.min_strength),
        ("confidence", claim.confidence, rules.min_confidence),
    ):
        if given < least:
            said = f"its {name} {given:g} is below {least:g}"
            return replace(came.to(SignalState.REJECTED, said), completed_at=now)
    if claim.symbol is None:
        said = "it names no symbol that could be judged"
        return replace(came.to(SignalState.REJECTED, said), completed_at=now)
    return came.to(SignalState.VALIDATED)


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
    policy: AutomationMode  # automation policy in force
    step: MembershipStep | None
    note: str | None
    at: datetime
    proposal_id: str | None = None
    version: int | None = None  # resulting version of the portfolio
