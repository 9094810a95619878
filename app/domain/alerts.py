"""Alert rules over the members: a table of predicates that say value, limit and since when."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.domain.configuration import Configuration


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


class Rule(StrEnum):
    NOT_TRADEABLE = "not_tradeable"
    LOW_SCORE = "low_score"
    HIGH_CORRELATION = "high_correlation"
    POOR_PERFORMANCE = "poor_performance"


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule that fired for one subject; `value` and `limit` are None where it is a state."""

    rule: Rule
    subject: str  # a symbol, or a pair A-B in alphabetical order
    symbols: tuple[str, ...]
    severity: Severity
    value: float | None
    limit: float | None
    message: str
    since: datetime  # as of the data that it rests on


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """What the rules look at; None is unknown and never fires."""

    symbol: str
    status: str  # of the contract, in the exchange's words
    is_open: bool
    score: float | None
    performance: float | None  # fraction since inclusion


Correlations = Mapping[tuple[str, str], float]  # known ones only


def judge(
    facts: Iterable[MemberFacts],
    correlations: Correlations,
    configuration: Configuration,
    as_of: datetime,
) -> tuple[Alert, ...]:
    """All alerts that the facts give, critical first, then by rule and subject."""
    found = [
        alert
        for one in facts
        for check in _MEMBER_RULES
        if (alert := check(one, configuration, as_of)) is not None
    ]
    limit = configuration.correlation.alert
    found += [
        Alert(
            Rule.HIGH_CORRELATION,
            "-".join(sorted(pair)),
            tuple(sorted(pair)),
            Severity.WARNING,
            rho,
            limit,
            f"{' and '.join(sorted(pair))} move together: {rho:.2f}",
            as_of,
        )
        for pair, rho in correlations.items()
        if rho > limit
    ]
    return tuple(sorted(found, key=lambda alert: (alert.severity, alert.rule, alert.subject)))


def _not_tradeable(
    facts: MemberFacts, _configuration: Configuration, as_of: datetime
) -> Alert | None:
    if facts.is_open:
        return None
    return Alert(
        Rule.NOT_TRADEABLE,
        facts.symbol,
        (facts.symbol,),
        Severity.CRITICAL,
        None,
        None,
        f"{facts.symbol} cannot be traded at the exchange: {facts.status}",
        as_of,
    )


def _low_score(facts: MemberFacts, configuration: Configuration, as_of: datetime) -> Alert | None:
    limit = configuration.alerts.low_score
    if facts.score is None or facts.score >= limit:
        return None
    return Alert(
        Rule.LOW_SCORE,
        facts.symbol,
        (facts.symbol,),
        Severity.WARNING,
        facts.score,
        limit,
        f"{facts.symbol} scores {facts.score:.2f}",
        as_of,
    )


def _poor_performance(
    facts: MemberFacts, configuration: Configuration, as_of: datetime
) -> Alert | None:
    limit = configuration.alerts.poor_performance
    if facts.performance is None or facts.performance >= limit:
        return None
    return Alert(
        Rule.POOR_PERFORMANCE,
        facts.symbol,
        (facts.symbol,),
        Severity.WARNING,
        facts.performance,
        limit,
        f"{facts.symbol} has moved {facts.performance:.1%} since its inclusion",
        as_of,
    )


_MEMBER_RULES: Final[tuple[Callable[[MemberFacts, Configuration, datetime], Alert | None], ...]] = (
    _not_tradeable,
    _low_score,
    _poor_performance,
)
