"""What each alert rule looks at: while that is the same, so is what the rule says."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from app.alerts.domain.alert_rules_whole import rebalance_done, recovered
from app.alerts.domain.facts import Facts
from app.alerts.domain.models import Rule
from app.alerts.domain.portfolio_rules import (
    OfMembers,
    delisting_announced,
    drawdown,
    funding_extreme,
    low_score,
    not_tradeable,
    poor_performance,
    price_anomaly,
    quarantined,
    replacement_recommended,
    support_lost,
    weight_out_of_bounds,
)
from app.configuration.domain.model import Configuration

# Two values that are equal: a rule that found nothing at the one finds nothing at the other.
Sees = Callable[[Facts, Configuration], object]


def _link(facts: Facts, _: Configuration) -> object:
    link = facts.system.link
    return None if link is None else (link.state, link.cause)


def _correlations(facts: Facts, _: Configuration) -> object:
    held = facts.portfolio
    return held.correlations, tuple(one.symbol for one in held.members)


def _raw_correlations(facts: Facts, _: Configuration) -> object:
    held = facts.portfolio
    return held.raw_correlations, tuple(one.symbol for one in held.members)


def _falls(facts: Facts, _: Configuration) -> object:
    return tuple((one.former_score, one.score) for one in facts.portfolio.members)


def _freshness(facts: Facts, _: Configuration) -> object:
    return facts.system.data_status, tuple(one.is_fresh for one in facts.portfolio.members)


_OF_MEMBERS: Final[Mapping[Rule, OfMembers]] = {
    Rule.NOT_TRADEABLE: not_tradeable,
    Rule.LOW_SCORE: low_score,
    Rule.POOR_PERFORMANCE: poor_performance,
    Rule.SUPPORT_LOST: support_lost,
    Rule.QUARANTINED: quarantined,
    Rule.DELISTING_ANNOUNCED: delisting_announced,
    Rule.DRAWDOWN: drawdown,
    Rule.WEIGHT_OUT_OF_BOUNDS: weight_out_of_bounds,
    Rule.FUNDING_EXTREME: funding_extreme,
    Rule.PRICE_ANOMALY: price_anomaly,
    Rule.REPLACEMENT_RECOMMENDED: replacement_recommended,
}

SEES: Final[Mapping[Rule, Sees]] = MappingProxyType(
    {rule: judge.sees for rule, judge in _OF_MEMBERS.items()}
    | {
        Rule.HIGH_CORRELATION: _correlations,
        Rule.HIGH_RAW_CORRELATION: _raw_correlations,
        Rule.SCORE_DROPPED: _falls,
        Rule.PORTFOLIO_BELOW_SIZE: lambda facts, _: (
            facts.portfolio.was_formed,
            tuple(one.is_lost for one in facts.portfolio.members),
        ),
        Rule.SECTOR_CONCENTRATION: lambda facts, _: facts.portfolio.sectors,
        Rule.VAR_ABOVE_LIMIT: lambda facts, _: facts.portfolio.value_at_risk,
        # News go by the clock: what is shown of them is all that is looked at.
        Rule.REBALANCE_DONE: rebalance_done,
        Rule.RECOVERED: recovered,
        Rule.EXCHANGE_BANNED: _link,
        Rule.EXCHANGE_DISCONNECTED: _link,
        Rule.REDIRECT_REFUSED: lambda facts, _: facts.system.redirected,
        Rule.UNIVERSE_ANOMALY: lambda facts, _: (
            facts.system.universe_known,
            facts.system.anomaly,
        ),
        Rule.SCHEMA_DRIFT: lambda facts, _: facts.system.refused,
        Rule.UNKNOWN_CONTRACT_STATUS: lambda facts, _: (
            facts.system.universe_known,
            facts.system.odd_status,
        ),
        Rule.DATA_STALE: _freshness,
        Rule.CLOCK_OFFSET: lambda facts, _: (
            facts.system.clock_offset_s,
            facts.system.data_source,
        ),
        Rule.JOB_LATE: lambda facts, _: tuple(one.late for one in facts.system.jobs),
        Rule.JOB_FAILING: lambda facts, _: tuple(one.failures for one in facts.system.jobs),
        Rule.CONFIG_DRIFT: lambda facts, _: facts.system.drifted,
    }
)
