"""What an alert is: a rule that holds for a subject, with value, limit and since when."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum, auto
from typing import Final

from app.domain.alert_settings import Severity


class Rule(StrEnum):
    """Every rule; the settings of each stand under the same name."""

    NOT_TRADEABLE = "not_tradeable"
    LOW_SCORE = "low_score"
    HIGH_CORRELATION = "high_correlation"
    POOR_PERFORMANCE = "poor_performance"
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


class Side(Enum):
    """Where a rule fires: while a state holds, above its limit or below it."""

    STATE = auto()
    ABOVE = auto()
    BELOW = auto()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a rule sees at one subject: a number, or for a state whether it holds.

    None is unknown: it neither raises nor ends an alert.
    """

    subject: str  # a symbol, a pair A-B in alphabetical order, or what else the rule is about
    message: str
    symbols: tuple[str, ...] = ()
    value: float | None = None
    holds: bool | None = None

    def fires(self, side: Side, limit: float | None) -> bool | None:
        """Whether it is beyond `limit`, strictly; None where it is unknown."""
        if side is Side.STATE:
            return self.holds
        if self.value is None or limit is None:
            return None
        return self.value > limit if side is Side.ABOVE else self.value < limit


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule that fires for one subject; `value` and `limit` are None where it is a state."""

    rule: Rule
    subject: str
    symbols: tuple[str, ...]
    severity: Severity
    value: float | None
    limit: float | None
    message: str
    since: datetime  # as of the data that it rests on


_GRAVEST: Final = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


def gravity(severity: Severity) -> int:
    """0 for the gravest."""
    return _GRAVEST.index(severity)


def ordered(alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    """Critical first, then by rule and subject."""
    return tuple(sorted(alerts, key=lambda one: (gravity(one.severity), one.rule, one.subject)))
