"""Evaluates the alert rules: opens, updates and ends alerts. Pure and idempotent."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from app.alerts.domain.facts import Facts
from app.alerts.domain.models import Alert, AlertRule, AlertState, Resolution, RuleReading, rank
from app.alerts.domain.rules import RULES, ActiveRule, in_force
from app.configuration.domain.model import Configuration

# Minimum pause before an alert that an operator resolved may reopen.
REST_S: Final = 600
# Interval at which an unchanged alert stores its time and number again.
TOUCH_S: Final = 30.0

Key = tuple[AlertRule, str]


@dataclass(frozen=True, slots=True)
class ResolvedAlert:
    """Last end of an alert with one rule and subject."""

    at: datetime
    how: Resolution


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Unresolved alerts, critical first, and the changes that led to them."""

    active: tuple[Alert, ...]
    saved: tuple[Alert, ...]  # new or changed in any way
    dropped: tuple[str, ...]  # ids of pending ones that never opened
    raised: tuple[Alert, ...]  # opened, or woken from a snooze
    ended: tuple[Alert, ...]

    @property
    def is_news(self) -> bool:
        """Whether anything has to be stored."""
        return bool(self.saved or self.dropped)


@dataclass(slots=True)
class _Pass:
    """Accumulated state of one walk over the rules."""

    now: datetime
    ended: Mapping[Key, ResolvedAlert]
    new_id: Callable[[], str]
    left: dict[Key, Alert]
    kept: list[Alert]
    saved: list[Alert]
    dropped: list[str]
    raised: list[Alert]
    over: list[Alert]

    def fires(self, force: ActiveRule, seen: RuleReading) -> None:
        """Open or update the alert of a reading that exceeds its limit."""
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
        # A changed number alone is not stored: it would be written at every evaluation.
        same = replace(alert, value=known.value, message=known.message) == known
        touched = (self.now - known.last_seen_at).total_seconds() >= TOUCH_S
        if touched or not same:
            alert = replace(alert, last_seen_at=self.now)
        self.keep(alert, is_new=touched or not same)

    def opened(self, alert: Alert, force: ActiveRule) -> Alert:
        """Open a pending alert once its duration and cooldown have passed."""
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
    ended: Mapping[Key, ResolvedAlert],
    new_id: Callable[[], str],
) -> Evaluation:
    """Evaluate every rule over `facts`.

    An alert opens when its rule has fired for `duration_s` and `cooldown_s` have passed since the
    last one ended; it ends when the number is back beyond the clear limit, when its subject is
    gone or when its rule is switched off. Unknown inputs change nothing.
    """
    found = {alert.key: alert for alert in active}
    walk = _Pass(facts.at, ended, new_id, found, [], [], [], [], [])
    for rule in RULES:
        _ask(walk, rule, facts, configuration)
    return Evaluation(
        tuple(sorted(walk.kept, key=rank)),
        tuple(walk.saved),
        tuple(walk.dropped),
        tuple(walk.raised),
        tuple(walk.over),
    )


def _ask(walk: _Pass, rule: AlertRule, facts: Facts, configuration: Configuration) -> None:
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


def _judge(walk: _Pass, force: ActiveRule, reading: RuleReading) -> None:
    known = walk.left.get((force.rule, reading.subject))
    is_open = known is not None and known.state is not AlertState.PENDING
    verdict = reading.fires(force.side, force.clear_limit if is_open else force.limit)
    if verdict is None:
        if known is not None:
            walk.keep(walk.left.pop(known.key), is_new=False)
        return
    if verdict:
        walk.fires(force, reading)


def _of(rule: AlertRule, found: dict[Key, Alert]) -> Iterator[Alert]:
    """Remove and yield the remaining alerts of a rule."""
    for key in [key for key in found if key[0] is rule]:
        yield found.pop(key)


def _new(force: ActiveRule, seen: RuleReading, at: datetime, alert_id: str) -> Alert:
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


def _due(alert: Alert, force: ActiveRule, ended: ResolvedAlert | None) -> datetime:
    """Earliest time at which a pending alert may open."""
    held = alert.since + timedelta(seconds=force.settings.duration_s)
    if ended is None:
        return held
    by_hand = ended.how is Resolution.OPERATOR
    rest = max(force.settings.cooldown_s, REST_S) if by_hand else force.settings.cooldown_s
    return max(held, ended.at + timedelta(seconds=rest))
