"""Settings of the alert rules: how grave, from which limit on, how long, how soon again."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.domain.setting import setting

_DAY_S: Final = 86_400


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class StateRule:
    """A rule about a state: it holds or it does not.

    What holds for `duration_s` becomes an alert; what ended less than `cooldown_s` ago waits.
    """

    enabled: bool = setting(default=True)
    severity: Severity = Severity.WARNING
    duration_s: int = setting(0, 0, _DAY_S)
    cooldown_s: int = setting(0, 0, 7 * _DAY_S)


@dataclass(frozen=True, slots=True)
class MarginRule(StateRule):
    """A rule about a number whose limit is another setting.

    An alert ends only where the number is back by `clear_margin` beyond the limit.
    """

    clear_margin: float = setting(0.0, 0.0, 1_000_000.0)


@dataclass(frozen=True, slots=True)
class LimitRule(MarginRule):
    """A rule about a number with a limit of its own."""

    limit: float = setting(0.0, -1_000_000.0, 1_000_000.0)


_CALM_S: Final = 600  # a number that plays around its limit is news once in so long
_CRITICAL: Final = StateRule(severity=Severity.CRITICAL)
_WARNING: Final = StateRule()


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Every rule by its name; the order is that of GET /alerts/rules."""

    # of the portfolio
    not_tradeable: StateRule = _CRITICAL
    low_score: MarginRule = MarginRule(cooldown_s=_CALM_S, clear_margin=0.02)
    high_correlation: MarginRule = MarginRule(cooldown_s=_CALM_S, clear_margin=0.03)
    poor_performance: MarginRule = MarginRule(cooldown_s=_CALM_S, clear_margin=0.02)
    # of the service and its exchange
    exchange_banned: StateRule = _CRITICAL
    exchange_disconnected: StateRule = _WARNING
    redirect_refused: StateRule = _CRITICAL
    universe_anomaly: StateRule = _WARNING
    schema_drift: StateRule = _WARNING
    unknown_contract_status: StateRule = _WARNING
    data_stale: StateRule = _WARNING
    clock_offset: LimitRule = LimitRule(limit=1.0, clear_margin=0.2)  # seconds
    job_late: LimitRule = LimitRule(limit=3.0)  # intervals
    job_failing: LimitRule = LimitRule(limit=2.0)  # failures in a row


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Limits that were settings of their own from the start, and the rules."""

    low_score: float = setting(0.5, 0.0, 1.0)  # a member below it is reported
    poor_performance: float = setting(-0.2, -1.0, 0.0)  # fraction since inclusion
    rules: AlertRules = AlertRules()
