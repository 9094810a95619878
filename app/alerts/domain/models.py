"""What an alert is, and the states it goes through from its first sight to its end."""

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
    """Every rule; the settings of each stand under the same name."""

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
    """Where a rule fires: while a state holds, above its limit or below it."""

    STATE = auto()
    ABOVE = auto()
    BELOW = auto()


@dataclass(frozen=True, slots=True)
class RuleReading:
    """What a rule sees at one subject: a number, or for a state whether it holds.

    None is unknown: it neither raises nor ends an alert.
    """

    subject: str  # a symbol, a pair A-B in alphabetical order, or what else the rule is about
    message: str
    symbols: tuple[str, ...] = ()
    value: float | None = None
    holds: bool | None = None

    def fires(self, side: ThresholdSide, limit: float | None) -> bool | None:
        """Whether it is beyond `limit`, strictly; None where it is unknown."""
        if side is ThresholdSide.STATE:
            return self.holds
        if self.value is None or limit is None:
            return None
        seen, most = to_millionths(self.value), to_millionths(limit)
        return seen > most if side is ThresholdSide.ABOVE else seen < most


class AlertState(StrEnum):
    """PENDING has not held for long enough yet, or ended too short a time ago."""

    PENDING = "pending"
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    SNOOZED = "snoozed"
    RESOLVED = "resolved"


class AlertTransition(StrEnum):
    """What moves an alert."""

    RAISE = "raise"
    ACKNOWLEDGE = "acknowledge"
    SNOOZE = "snooze"
    WAKE = "wake"
    RESOLVE = "resolve"


class Resolution(StrEnum):
    """How an alert ended."""

    CLEARED = "cleared"  # the cause is gone
    OPERATOR = "operator"  # somebody said so
    DISABLED = "disabled"  # the rule was switched off


# Nothing leaves RESOLVED: what comes again is another alert.
STEPS: Final[Mapping[tuple[AlertState, AlertTransition], AlertState]] = MappingProxyType(
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
    since: datetime  # it has held from here on
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
        """At most one alert with this key is not resolved."""
        return self.rule, self.subject

    def _moved(self, step: AlertTransition) -> "Alert":
        state = STEPS.get((self.state, step))
        if state is None:
            raise ConflictError(
                Code.ALERT_STATE, f"The alert is {self.state.value}: it cannot {step.value} now."
            )
        return replace(self, state=state)

    def raised(self, at: datetime) -> "Alert":
        return replace(self._moved(AlertTransition.RAISE), opened_at=at)

    def acknowledged(self, at: datetime, by: str) -> "Alert":
        """Somebody has seen it. Raises ConflictError for one that is not active."""
        moved = self._moved(AlertTransition.ACKNOWLEDGE)
        if self.state is AlertState.ACKNOWLEDGED:
            return self
        return replace(moved, acknowledged_at=at, acknowledged_by=by, snoozed_until=None)

    def snoozed(self, until: datetime, by: str) -> "Alert":
        """Quiet until then. Raises ConflictError for one that is not active."""
        return replace(self._moved(AlertTransition.SNOOZE), snoozed_until=until, snoozed_by=by)

    def awake(self) -> "Alert":
        return replace(self._moved(AlertTransition.WAKE), snoozed_until=None)

    def resolved(self, at: datetime, how: Resolution, by: str | None = None) -> "Alert":
        """Raises ConflictError for one that has ended or never opened."""
        return replace(
            self._moved(AlertTransition.RESOLVE), resolved_at=at, resolution=how, resolved_by=by
        )


_GRAVEST: Final = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


def gravity(severity: Severity) -> int:
    """0 for the gravest."""
    return _GRAVEST.index(severity)


def rank(alert: Alert) -> tuple[int, str, str]:
    """Its place in a list: critical first, then by rule and subject."""
    return gravity(alert.severity), alert.rule.value, alert.subject
