"""Settings of the alert rules: how grave, from which limit on, how long, how soon again."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.configuration.domain.fields import setting

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
    high_raw_correlation: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.9, clear_margin=0.02)
    poor_performance: MarginRule = MarginRule(cooldown_s=_CALM_S, clear_margin=0.02)
    support_lost: StateRule = _CRITICAL
    quarantined: StateRule = _WARNING
    delisting_announced: StateRule = _CRITICAL
    score_dropped: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.15, clear_margin=0.05)
    drawdown: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.25, clear_margin=0.02)
    weight_out_of_bounds: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.5, clear_margin=0.1)
    portfolio_below_size: LimitRule = LimitRule(severity=Severity.INFO, limit=3.0)
    sector_concentration: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.6, clear_margin=0.05)
    var_above_limit: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.1, clear_margin=0.01)
    funding_extreme: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.001, clear_margin=0.0002)
    price_anomaly: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=6.0, clear_margin=1.0)
    replacement_recommended: StateRule = StateRule(severity=Severity.INFO)
    rebalance_done: LimitRule = LimitRule(severity=Severity.INFO, limit=900.0)  # seconds shown
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
    config_drift: StateRule = StateRule(duration_s=30)  # a rolling restart takes its time
    recovered: LimitRule = LimitRule(severity=Severity.INFO, limit=900.0)  # seconds shown


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Limits that were settings of their own from the start, and the rules."""

    low_score: float = setting(0.5, 0.0, 1.0)  # a member below it is reported
    poor_performance: float = setting(-0.2, -1.0, 0.0)  # fraction since inclusion
    score_drop_runs: int = setting(12, 1, 1_000)  # boards back that a score is compared with
    rules: AlertRules = AlertRules()
