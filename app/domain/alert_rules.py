"""The alert rules: a table of predicates over the facts of one moment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from app.domain.alert_facts import Facts
from app.domain.alert_rules_portfolio import (
    high_correlation,
    low_score,
    not_tradeable,
    poor_performance,
)
from app.domain.alert_rules_system import (
    clock_offset,
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
from app.domain.alert_settings import LimitRule, MarginRule, StateRule
from app.domain.alerts import Alert, Reading, Rule, Side, ordered
from app.domain.configuration import Configuration

# Every subject that the rule judges now; None where it cannot judge at all.
Read = Callable[[Facts, Configuration], Sequence[Reading] | None]


def _own_limit(configuration: Configuration, settings: StateRule) -> float | None:
    del configuration
    return settings.limit if isinstance(settings, LimitRule) else None


@dataclass(frozen=True, slots=True)
class Spec:
    """How one rule is judged; `limit_at` finds its limit in the settings."""

    read: Read
    side: Side = Side.STATE
    limit_at: Callable[[Configuration, StateRule], float | None] = _own_limit


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
        Rule.LOW_SCORE: Spec(low_score, Side.BELOW, lambda all_, _: all_.alerts.low_score),
        Rule.HIGH_CORRELATION: Spec(
            high_correlation, Side.ABOVE, lambda all_, _: all_.correlation.alert
        ),
        Rule.POOR_PERFORMANCE: Spec(
            poor_performance, Side.BELOW, lambda all_, _: all_.alerts.poor_performance
        ),
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
    }
)


def in_force(rule: Rule, configuration: Configuration) -> RuleInForce:
    """A rule as the settings have it now."""
    spec = RULES[rule]
    settings: StateRule = getattr(configuration.alerts.rules, rule.value)
    limit = spec.limit_at(configuration, settings)
    clear = limit
    if limit is not None and isinstance(settings, MarginRule):
        away = settings.clear_margin
        clear = limit - away if spec.side is Side.ABOVE else limit + away
    return RuleInForce(rule, spec.side, settings, limit, clear)


def judge(facts: Facts, configuration: Configuration) -> tuple[Alert, ...]:
    """All alerts that the facts give at this moment, critical first, then by rule and subject."""
    found = []
    for rule, spec in RULES.items():
        force = in_force(rule, configuration)
        if not force.settings.enabled:
            continue
        found += [
            Alert(
                rule,
                one.subject,
                one.symbols,
                force.settings.severity,
                one.value,
                force.limit,
                one.message,
                facts.as_of,
            )
            for one in spec.read(facts, configuration) or ()
            if one.fires(spec.side, force.limit)
        ]
    return ordered(found)
