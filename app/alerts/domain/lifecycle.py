"""One evaluation: what the facts make of the alerts that there are. Pure, and the same twice."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from app.alerts.domain.facts import Facts
from app.alerts.domain.models import Alert, AlertState, Reading, Resolution, Rule, rank
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
    rebalance_done,
    recovered,
    replacement_recommended,
    support_lost,
    weight_out_of_bounds,
)
from app.alerts.domain.rules import RULES, RuleInForce, in_force
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


# An alert that somebody ended while its cause stands does not come back sooner.
REST_S: Final = 600
# Seen again without any other news than its number is noted so often.
TOUCH_S: Final = 30.0

Key = tuple[Rule, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """The last end of an alert of the same rule and subject."""

    at: datetime
    how: Resolution


@dataclass(frozen=True, slots=True)
class Calm:
    """The rules that had nothing to say under some settings, and what each of them looked at."""

    configuration: Configuration
    seen: Mapping[Rule, object]

    def is_so(self, rule: Rule, seen: object, configuration: Configuration) -> bool:
        """Whether the rule has nothing to say again, so that it need not be asked."""
        return self.configuration is configuration and rule in self.seen and self.seen[rule] == seen


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The alerts that are not resolved, critical first, and what changed on the way there."""

    active: tuple[Alert, ...]
    saved: tuple[Alert, ...]  # new or changed in any way
    dropped: tuple[str, ...]  # ids of pending ones that never opened
    raised: tuple[Alert, ...]  # opened, or woken from a snooze
    ended: tuple[Alert, ...]
    calm: Calm  # for the next one

    @property
    def is_news(self) -> bool:
        return bool(self.saved or self.dropped)


@dataclass(slots=True)
class _Pass:
    """One walk over the rules, and what it has found so far."""

    now: datetime
    ended: Mapping[Key, Ended]
    new_id: Callable[[], str]
    left: dict[Key, Alert]
    kept: list[Alert]
    saved: list[Alert]
    dropped: list[str]
    raised: list[Alert]
    over: list[Alert]

    def fires(self, force: RuleInForce, seen: Reading) -> None:
        """The reading is beyond the limit, or not far enough back from it."""
        known = self.left.pop((force.rule, seen.subject), None)
        if known is None:
            fresh = _new(force, seen, self.now, self.new_id())
            self.keep(self.opened(fresh, force), is_new=True)
            return
        alert = replace(
            known,
            symbols=seen.symbols,
            severity=force.settings.severity,
            value=seen.value,
            limit=force.limit,
            message=seen.message,
        )
        if alert.state is AlertState.PENDING:
            alert = self.opened(alert, force)
        elif alert.snoozed_until is not None and alert.snoozed_until <= self.now:
            alert = alert.awake()
            self.raised.append(alert)
        # A number that moves is no news by itself: it would be written at every look.
        same = replace(alert, value=known.value, message=known.message) == known
        touched = (self.now - known.last_seen_at).total_seconds() >= TOUCH_S
        if touched or not same:
            alert = replace(alert, last_seen_at=self.now)
        self.keep(alert, is_new=touched or not same)

    def opened(self, alert: Alert, force: RuleInForce) -> Alert:
        """A pending alert, open if it has waited for long enough."""
        if self.now < _due(alert, force, self.ended.get(alert.key)):
            return alert
        alert = alert.raised(self.now)
        self.raised.append(alert)
        return alert

    def keep(self, alert: Alert, *, is_new: bool) -> None:
        self.kept.append(alert)
        if is_new:
            self.saved.append(alert)

    def ends(self, alert: Alert, how: Resolution) -> None:
        if alert.state is AlertState.PENDING:
            self.dropped.append(alert.id)
            return
        done = alert.resolved(self.now, how)
        self.saved.append(done)
        self.over.append(done)


def evaluate(
    active: Iterable[Alert],
    facts: Facts,
    configuration: Configuration,
    ended: Mapping[Key, Ended],
    new_id: Callable[[], str],
    before: Calm | None = None,
) -> Evaluation:
    """The alerts after a look at `facts`; with what was calm `before` the same with less work.

    An alert opens when its rule has fired for `duration_s` and `cooldown_s` have passed since the
    last one ended; it ends when the number is back beyond the clear limit, when its subject is
    gone or when its rule is switched off. What is unknown changes nothing. A rule without an
    alert is asked only where what it looks at is not what it found nothing at.
    """
    found = {alert.key: alert for alert in active}
    raised, calm = {rule for rule, _ in found}, dict[Rule, object]()
    walk = _Pass(facts.at, ended, new_id, found, [], [], [], [], [])
    for rule in RULES:
        looked, kept = SEES[rule](facts, configuration), len(walk.kept)
        if rule in raised or before is None or not before.is_so(rule, looked, configuration):
            _ask(walk, rule, facts, configuration)
        if rule not in raised and len(walk.kept) == kept:
            calm[rule] = looked
    return Evaluation(
        tuple(sorted(walk.kept, key=rank)),
        tuple(walk.saved),
        tuple(walk.dropped),
        tuple(walk.raised),
        tuple(walk.over),
        Calm(configuration, calm),
    )


def _ask(walk: _Pass, rule: Rule, facts: Facts, configuration: Configuration) -> None:
    force = in_force(rule, configuration)
    if not force.settings.enabled:
        for alert in _of(rule, walk.left):
            walk.ends(alert, Resolution.DISABLED)
        return
    seen = RULES[rule].read(facts, configuration)
    if seen is None:
        for alert in _of(rule, walk.left):
            walk.keep(alert, is_new=False)
        return
    for reading in seen:
        _judge(walk, force, reading)
    for alert in _of(rule, walk.left):
        walk.ends(alert, Resolution.CLEARED)


def _judge(walk: _Pass, force: RuleInForce, reading: Reading) -> None:
    known = walk.left.get((force.rule, reading.subject))
    is_open = known is not None and known.state is not AlertState.PENDING
    verdict = reading.fires(force.side, force.clear_limit if is_open else force.limit)
    if verdict is None:
        if known is not None:
            walk.keep(walk.left.pop(known.key), is_new=False)
        return
    if verdict:
        walk.fires(force, reading)


def _of(rule: Rule, found: dict[Key, Alert]) -> Iterator[Alert]:
    """Those of a rule that are left, taken out."""
    for key in [key for key in found if key[0] is rule]:
        yield found.pop(key)


def _new(force: RuleInForce, seen: Reading, at: datetime, alert_id: str) -> Alert:
    return Alert(
        id=alert_id,
        rule=force.rule,
        subject=seen.subject,
        symbols=seen.symbols,
        severity=force.settings.severity,
        state=AlertState.PENDING,
        value=seen.value,
        limit=force.limit,
        message=seen.message,
        since=at,
        last_seen_at=at,
    )


def _due(alert: Alert, force: RuleInForce, ended: Ended | None) -> datetime:
    """From when on a pending alert may open."""
    held = alert.since + timedelta(seconds=force.settings.duration_s)
    if ended is None:
        return held
    by_hand = ended.how is Resolution.OPERATOR
    rest = max(force.settings.cooldown_s, REST_S) if by_hand else force.settings.cooldown_s
    return max(held, ended.at + timedelta(seconds=rest))
