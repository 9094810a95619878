"""The alert rules: a table of predicates over the facts of one moment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from app.alerts.domain.facts import Facts
from app.alerts.domain.models import Reading, Rule, Side
from app.alerts.domain.portfolio_rules import (
    delisting_announced,
    drawdown,
    funding_extreme,
    high_correlation,
    high_raw_correlation,
    low_score,
    not_tradeable,
    poor_performance,
    portfolio_below_size,
    price_anomaly,
    quarantined,
    rebalance_done,
    recovered,
    replacement_recommended,
    score_dropped,
    sector_concentration,
    support_lost,
    var_above_limit,
    weight_out_of_bounds,
)
from app.alerts.domain.system_rules import (
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

# Every subject that the rule judges now; None where it cannot judge at all.
Read = Callable[[Facts, Configuration], Sequence[Reading] | None]


@dataclass(frozen=True, slots=True)
class Spec:
    """How one rule is judged; `limit_at` names the setting that is its limit, where not its own."""

    read: Read
    side: Side = Side.STATE
    limit_at: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class RuleInForce:
    """One rule with its present settings; limits are None where it is about a state."""

    rule: Rule
    side: Side
    settings: StateRule
    limit: float | None
    clear_limit: float | None


RULES: Final[Mapping[Rule, Spec]] = MappingProxyType(
    {
        Rule.NOT_TRADEABLE: Spec(not_tradeable),
        Rule.LOW_SCORE: Spec(low_score, Side.BELOW, ("alerts", "low_score")),
        Rule.HIGH_CORRELATION: Spec(high_correlation, Side.ABOVE, ("correlation", "alert")),
        Rule.HIGH_RAW_CORRELATION: Spec(high_raw_correlation, Side.ABOVE),
        Rule.POOR_PERFORMANCE: Spec(poor_performance, Side.BELOW, ("alerts", "poor_performance")),
        Rule.SUPPORT_LOST: Spec(support_lost),
        Rule.QUARANTINED: Spec(quarantined),
        Rule.DELISTING_ANNOUNCED: Spec(delisting_announced),
        Rule.SCORE_DROPPED: Spec(score_dropped, Side.ABOVE),
        Rule.DRAWDOWN: Spec(drawdown, Side.ABOVE),
        Rule.WEIGHT_OUT_OF_BOUNDS: Spec(weight_out_of_bounds, Side.ABOVE),
        Rule.PORTFOLIO_BELOW_SIZE: Spec(portfolio_below_size, Side.BELOW),
        Rule.SECTOR_CONCENTRATION: Spec(sector_concentration, Side.ABOVE),
        Rule.VAR_ABOVE_LIMIT: Spec(var_above_limit, Side.ABOVE),
        Rule.FUNDING_EXTREME: Spec(funding_extreme, Side.ABOVE),
        Rule.PRICE_ANOMALY: Spec(price_anomaly, Side.ABOVE),
        Rule.REPLACEMENT_RECOMMENDED: Spec(replacement_recommended),
        Rule.REBALANCE_DONE: Spec(rebalance_done),
        Rule.EXCHANGE_BANNED: Spec(exchange_banned),
        Rule.EXCHANGE_DISCONNECTED: Spec(exchange_disconnected),
        Rule.REDIRECT_REFUSED: Spec(redirect_refused),
        Rule.UNIVERSE_ANOMALY: Spec(universe_anomaly),
        Rule.SCHEMA_DRIFT: Spec(schema_drift),
        Rule.UNKNOWN_CONTRACT_STATUS: Spec(unknown_contract_status),
        Rule.DATA_STALE: Spec(data_stale),
        Rule.CLOCK_OFFSET: Spec(clock_offset, Side.ABOVE),
        Rule.JOB_LATE: Spec(job_late, Side.ABOVE),
        Rule.JOB_FAILING: Spec(job_failing, Side.ABOVE),
        Rule.CONFIG_DRIFT: Spec(config_drift),
        Rule.RECOVERED: Spec(recovered),
    }
)


def in_force(rule: Rule, configuration: Configuration) -> RuleInForce:
    """A rule as the settings have it now."""
    spec = RULES[rule]
    settings: StateRule = getattr(configuration.alerts.rules, rule.value)
    limit = _limit(spec, settings, configuration)
    clear = limit
    if limit is not None and isinstance(settings, MarginRule):
        away = settings.clear_margin
        clear = round(limit - away if spec.side is Side.ABOVE else limit + away, 9)
    return RuleInForce(rule, spec.side, settings, limit, clear)


def _limit(spec: Spec, settings: StateRule, configuration: Configuration) -> float | None:
    if spec.limit_at is None:
        return settings.limit if isinstance(settings, LimitRule) else None
    group, name = spec.limit_at
    limit: float = getattr(getattr(configuration, group), name)
    return limit
