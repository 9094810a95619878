"""Table of the alert rules, each a predicate over the facts of one moment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from app.alerts.domain.facts import Facts
from app.alerts.domain.models import AlertRule, RuleReading, ThresholdSide
from app.alerts.domain.portfolio_rules import (
    contract_delisted,
    delisting_announced,
    drawdown,
    funding_extreme,
    high_correlation,
    high_raw_correlation,
    large_loss,
    low_score,
    not_tradeable,
    poor_performance,
    portfolio_below_size,
    price_anomaly,
    profitable_exit,
    quarantined,
    rebalance_done,
    recovered,
    replacement_recommended,
    score_dropped,
    sector_concentration,
    var_above_limit,
    weight_out_of_bounds,
)
from app.alerts.domain.system_rules import (
    authentication_burst,
    clock_offset,
    config_drift,
    data_stale,
    exchange_banned,
    exchange_disconnected,
    job_failing,
    job_late,
    redirect_refused,
    schema_drift,
    universe_anomaly,
    unknown_contract_status,
)
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import LimitRule, MarginRule, StateRule

# Readings of all subjects; None where the rule cannot be evaluated.
Read = Callable[[Facts, Configuration], Sequence[RuleReading] | None]


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """Definition of a rule; `limit_at` names the setting of a limit outside the rule."""

    read: Read
    side: ThresholdSide = ThresholdSide.STATE
    limit_at: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ActiveRule:
    """Rule with its current settings; limits are None for a state."""

    rule: AlertRule
    side: ThresholdSide
    settings: StateRule
    limit: float | None
    clear_limit: float | None


RULES: Final[Mapping[AlertRule, RuleSpec]] = MappingProxyType(
    {
        AlertRule.NOT_TRADEABLE: RuleSpec(not_tradeable),
        AlertRule.LOW_SCORE: RuleSpec(low_score, ThresholdSide.BELOW, ("alerts", "low_score")),
        AlertRule.HIGH_CORRELATION: RuleSpec(
            high_correlation, ThresholdSide.ABOVE, ("correlation", "alert")
        ),
        AlertRule.HIGH_RAW_CORRELATION: RuleSpec(high_raw_correlation, ThresholdSide.ABOVE),
        AlertRule.POOR_PERFORMANCE: RuleSpec(
            poor_performance, ThresholdSide.BELOW, ("alerts", "poor_performance")
        ),
        AlertRule.CONTRACT_DELISTED: RuleSpec(contract_delisted),
        AlertRule.QUARANTINED: RuleSpec(quarantined),
        AlertRule.DELISTING_ANNOUNCED: RuleSpec(delisting_announced),
        AlertRule.SCORE_DROPPED: RuleSpec(score_dropped, ThresholdSide.ABOVE),
        AlertRule.DRAWDOWN: RuleSpec(drawdown, ThresholdSide.ABOVE),
        AlertRule.WEIGHT_OUT_OF_BOUNDS: RuleSpec(weight_out_of_bounds, ThresholdSide.ABOVE),
        AlertRule.PORTFOLIO_BELOW_SIZE: RuleSpec(portfolio_below_size, ThresholdSide.BELOW),
        AlertRule.SECTOR_CONCENTRATION: RuleSpec(sector_concentration, ThresholdSide.ABOVE),
        AlertRule.VAR_ABOVE_LIMIT: RuleSpec(var_above_limit, ThresholdSide.ABOVE),
        AlertRule.FUNDING_EXTREME: RuleSpec(funding_extreme, ThresholdSide.ABOVE),
        AlertRule.PRICE_ANOMALY: RuleSpec(price_anomaly, ThresholdSide.ABOVE),
        AlertRule.REPLACEMENT_RECOMMENDED: RuleSpec(replacement_recommended),
        AlertRule.LARGE_LOSS: RuleSpec(large_loss, ThresholdSide.ABOVE),
        AlertRule.PROFITABLE_EXIT: RuleSpec(profitable_exit, ThresholdSide.ABOVE),
        AlertRule.REBALANCE_DONE: RuleSpec(rebalance_done),
        AlertRule.EXCHANGE_BANNED: RuleSpec(exchange_banned),
        AlertRule.EXCHANGE_DISCONNECTED: RuleSpec(exchange_disconnected),
        AlertRule.REDIRECT_REFUSED: RuleSpec(redirect_refused),
        AlertRule.UNIVERSE_ANOMALY: RuleSpec(universe_anomaly),
        AlertRule.SCHEMA_DRIFT: RuleSpec(schema_drift),
        AlertRule.UNKNOWN_CONTRACT_STATUS: RuleSpec(unknown_contract_status),
        AlertRule.DATA_STALE: RuleSpec(data_stale),
        AlertRule.CLOCK_OFFSET: RuleSpec(clock_offset, ThresholdSide.ABOVE),
        AlertRule.JOB_LATE: RuleSpec(job_late, ThresholdSide.ABOVE),
        AlertRule.JOB_FAILING: RuleSpec(job_failing, ThresholdSide.ABOVE),
        AlertRule.CONFIG_DRIFT: RuleSpec(config_drift),
        AlertRule.AUTHENTICATION_BURST: RuleSpec(authentication_burst, ThresholdSide.ABOVE),
        AlertRule.RECOVERED: RuleSpec(recovered),
    }
)


def activate_rule(rule: AlertRule, configuration: Configuration) -> ActiveRule:
    """Returns a rule with its limits from the settings."""
    spec = RULES[rule]
    settings: StateRule = getattr(configuration.alerts.rules, rule.value)
    limit = _limit(spec, settings, configuration)
    clear = limit
    if limit is not None and isinstance(settings, MarginRule):
        margin = settings.clear_margin
        clear = round(limit - margin if spec.side is ThresholdSide.ABOVE else limit + margin, 9)
    return ActiveRule(rule, spec.side, settings, limit, clear)


def _limit(spec: RuleSpec, settings: StateRule, configuration: Configuration) -> float | None:
    if spec.limit_at is None:
        return settings.limit if isinstance(settings, LimitRule) else None
    group, name = spec.limit_at
    limit: float = getattr(getattr(configuration, group), name)
    return limit
