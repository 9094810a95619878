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
    SUPPORT_LOST = "support_lost"
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
    RECOVERED = "recovered"


class ThresholdSide(Enum):
    """Condition of a rule: a state, or a number above or below its limit."""

    STATE = auto()
    ABOVE = auto()
    BELOW = auto()


@dataclass(frozen=True, slots=True)
class RuleReading:
    """Observation of one subject: a number, or whether a state holds.

    None is unknown: it neither raises nor ends an alert.
    """

    subject: str  # a symbol, a pair A-B in alphabetical order, an endpoint or a task
    message: str
    symbols: tuple[str, ...] = ()
    value: float | None = None
    holds: bool | None = None

    def fires(self, side: ThresholdSide, limit: float | None) -> bool | None:
        """Whether the number lies strictly beyond `limit`; None where it is unknown."""
        if side is ThresholdSide.STATE:
            return self.holds
        if self.value is None or limit is None:
            return None
        seen, most = to_millionths(self.value), to_millionths(limit)
        return seen > most if side is ThresholdSide.ABOVE else seen < most


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

    CLEARED = "cleared"  # the cause is gone
    OPERATOR = "operator"  # resolved by hand
    DISABLED = "disabled"  # the rule was switched off


# No transition leaves RESOLVED: a recurrence is a new alert.
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
    """One rule that fires for one subject; `value` and `limit` are None where it is a state."""

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

    def _moved(self, step: AlertTransition) -> "Alert":
        state = TRANSITIONS.get((self.state, step))
        if state is None:
            raise ConflictError(
                Code.ALERT_STATE, f"The alert is {self.state.value}: it cannot {step.value} now."
            )
        return replace(self, state=state)

    def raised(self, at: datetime) -> "Alert":
        return replace(self._moved(AlertTransition.RAISE), opened_at=at)

    def acknowledged(self, at: datetime, by: str) -> "Alert":
        """Acknowledge an active alert. Raises ConflictError in any other state."""
        moved = self._moved(AlertTransition.ACKNOWLEDGE)
        if self.state is AlertState.ACKNOWLEDGED:
            return self
        return replace(moved, acknowledged_at=at, acknowledged_by=by, snoozed_until=None)

    def snoozed(self, until: datetime, by: str) -> "Alert":
        """Snooze an active alert. Raises ConflictError in any other state."""
        return replace(self._moved(AlertTransition.SNOOZE), snoozed_until=until, snoozed_by=by)

    def awake(self) -> "Alert":
        return replace(self._moved(AlertTransition.WAKE), snoozed_until=None)

    def resolved(self, at: datetime, how: Resolution, by: str | None = None) -> "Alert":
        """Resolve an active alert. Raises ConflictError in any other state."""
        return replace(
            self._moved(AlertTransition.RESOLVE), resolved_at=at, resolution=how, resolved_by=by
        )


_GRAVEST: Final = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


def gravity(severity: Severity) -> int:
    """Rank of a severity; 0 is critical."""
    return _GRAVEST.index(severity)


def rank(alert: Alert) -> tuple[int, str, str]:
    """Sort key: critical first, then by rule and subject."""
    return gravity(alert.severity), alert.rule.value, alert.subject
