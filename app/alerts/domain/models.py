"""Alerts, their states and the transitions between them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Final

from app.configuration.domain.sections import Severity
from app.foundation.decimal_math import to_millionths
from app.foundation.errors import Code, ConflictError


class AlertRule(StrEnum):
    """Names of the alert rules; the settings of each have the same name."""

    NOT_TRADEABLE = "not_tradeable"
    LOW_SCORE = "low_score"
    HIGH_CORRELATION = "high_correlation"
    HIGH_RAW_CORRELATION = "high_raw_correlation"
    POOR_PERFORMANCE = "poor_performance"
    CONTRACT_DELISTED = "contract_delisted"
    QUARANTINED = "quarantined"
    DELISTING_ANNOUNCED = "delisting_announced"
    SCORE_DROPPED = "score_dropped"
    DRAWDOWN = "drawdown"
    WEIGHT_OUT_OF_BOUNDS = "weight_out_of_bounds"
    PORTFOLIO_BELOW_SIZE = "portfolio_below_size"
    SECTOR_CONCENTRATION = "sector_concentration"
    VAR_ABOVE_LIMIT = "var_above_limit"
    FUNDING_EXTREME = "funding_extreme"
    PRICE_ANOMALY = "price_anomaly"
    REPLACEMENT_RECOMMENDED = "replacement_recommended"
    LARGE_LOSS = "large_loss"
    PROFITABLE_EXIT = "profitable_exit"
    REBALANCE_DONE = "rebalance_done"
    EXCHANGE_BANNED = "exchange_banned"
    EXCHANGE_DISCONNECTED = "exchange_disconnected"
    REDIRECT_REFUSED = "redirect_refused"
    UNIVERSE_ANOMALY = "universe_anomaly"
    SCHEMA_DRIFT = "schema_drift"
    UNKNOWN_CONTRACT_STATUS = "unknown_contract_status"
    DATA_STALE = "data_stale"
    CLOCK_OFFSET = "clock_offset"
    JOB_LATE = "job_late"
    JOB_FAILING = "job_failing"
    CONFIG_DRIFT = "config_drift"
    AUTHENTICATION_BURST = "authentication_burst"
    RECOVERED = "recovered"


class ThresholdSide(Enum):
    """Condition of a rule: a state, or a number above or below its limit."""

    STATE = auto()
    ABOVE = auto()
    BELOW = auto()


@dataclass(frozen=True, slots=True)
class RuleReading:
    """Observation of one subject: a number, or a state that holds or not.

    None is unknown, which neither raises nor ends an alert.
    """

    subject: str  # a symbol, a pair A-B in alphabetical order, an endpoint or a task
    message: str
    symbols: tuple[str, ...] = ()
    value: float | None = None
    holds: bool | None = None

    def is_exceeded(self, side: ThresholdSide, limit: float | None) -> bool | None:
        """True if the state holds or the number is strictly beyond `limit`; None if unknown."""
        if side is ThresholdSide.STATE:
            return self.holds
        if self.value is None or limit is None:
            return None
        value, threshold = to_millionths(self.value), to_millionths(limit)
        return value > threshold if side is ThresholdSide.ABOVE else value < threshold


class AlertState(StrEnum):
    """State of an alert; a pending one waits for its duration or cooldown."""

    PENDING = "pending"
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    SNOOZED = "snoozed"
    RESOLVED = "resolved"


class AlertTransition(StrEnum):
    """Transition between two alert states."""

    RAISE = "raise"
    ACKNOWLEDGE = "acknowledge"
    SNOOZE = "snooze"
    WAKE = "wake"
    RESOLVE = "resolve"


class Resolution(StrEnum):
    """Reason for the end of an alert."""

    CLEARED = "cleared"  # the condition no longer holds
    OPERATOR = "operator"  # resolved by hand
    DISABLED = "disabled"  # the rule was disabled


# No transition leaves RESOLVED; a recurrence is a new alert.
TRANSITIONS: Final[Mapping[tuple[AlertState, AlertTransition], AlertState]] = MappingProxyType(
    {
        (AlertState.PENDING, AlertTransition.RAISE): AlertState.OPEN,
        (AlertState.OPEN, AlertTransition.ACKNOWLEDGE): AlertState.ACKNOWLEDGED,
        (AlertState.OPEN, AlertTransition.SNOOZE): AlertState.SNOOZED,
        (AlertState.OPEN, AlertTransition.RESOLVE): AlertState.RESOLVED,
        (AlertState.ACKNOWLEDGED, AlertTransition.ACKNOWLEDGE): AlertState.ACKNOWLEDGED,
        (AlertState.ACKNOWLEDGED, AlertTransition.SNOOZE): AlertState.SNOOZED,
        (AlertState.ACKNOWLEDGED, AlertTransition.RESOLVE): AlertState.RESOLVED,
        (AlertState.SNOOZED, AlertTransition.ACKNOWLEDGE): AlertState.ACKNOWLEDGED,
        (AlertState.SNOOZED, AlertTransition.SNOOZE): AlertState.SNOOZED,
        (AlertState.SNOOZED, AlertTransition.WAKE): AlertState.OPEN,
        (AlertState.SNOOZED, AlertTransition.RESOLVE): AlertState.RESOLVED,
    }
)


@dataclass(frozen=True, slots=True)
class Alert:
    """Alert of one rule for one subject; `value` and `limit` are None for a state."""

    id: str
    rule: AlertRule
    subject: str
    symbols: tuple[str, ...]
    severity: Severity
    state: AlertState
    value: float | None
    limit: float | None
    message: str
    since: datetime  # start of the condition
    last_seen_at: datetime
    opened_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    snoozed_until: datetime | None = None
    snoozed_by: str | None = None
    resolved_at: datetime | None = None
    resolution: Resolution | None = None
    resolved_by: str | None = None

    @property
    def key(self) -> tuple[AlertRule, str]:
        """Unique key among the unresolved alerts."""
        return self.rule, self.subject

    def _transition(self, step: AlertTransition) -> "Alert":
        state = TRANSITIONS.get((self.state, step))
        if state is None:
            raise ConflictError(
                Code.ALERT_STATE, f"The alert is {self.state.value}: it cannot {step.value} now."
            )
        return replace(self, state=state)

    def open(self, at: datetime) -> "Alert":
        return replace(self._transition(AlertTransition.RAISE), opened_at=at)

    def acknowledge(self, at: datetime, by: str) -> "Alert":
        """Acknowledges an active alert. Raises ConflictError in any other state."""
        moved = self._transition(AlertTransition.ACKNOWLEDGE)
        if self.state is AlertState.ACKNOWLEDGED:
            return self
        return replace(moved, acknowledged_at=at, acknowledged_by=by, snoozed_until=None)

    def snooze(self, until: datetime, by: str) -> "Alert":
        """Snoozes an active alert. Raises ConflictError in any other state."""
        return replace(self._transition(AlertTransition.SNOOZE), snoozed_until=until, snoozed_by=by)

    def wake(self) -> "Alert":
        return replace(self._transition(AlertTransition.WAKE), snoozed_until=None)

    def resolve(self, at: datetime, resolution: Resolution, by: str | None = None) -> "Alert":
        """Resolves an active alert. Raises ConflictError in any other state."""
        return replace(
            self._transition(AlertTransition.RESOLVE),
            resolved_at=at,
            resolution=resolution,
            resolved_by=by,
        )


_BY_SEVERITY: Final = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


def severity_rank(severity: Severity) -> int:
    """Rank of a severity; 0 is critical."""
    return _BY_SEVERITY.index(severity)


def sort_key(alert: Alert) -> tuple[int, str, str]:
    """Sort key: critical first, then by rule and subject."""
    return severity_rank(alert.severity), alert.rule.value, alert.subject
