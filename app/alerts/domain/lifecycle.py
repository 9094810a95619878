"""Evaluates the alert rules: opens, updates and ends alerts. Pure and idempotent."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from app.alerts.domain.facts import Facts
from app.alerts.domain.models import Alert, AlertRule, AlertState, Resolution, RuleReading, sort_key
from app.alerts.domain.rules import RULES, ActiveRule, activate_rule
from app.configuration.domain.model import Configuration

# Minimum seconds before an alert that an operator resolved may reopen.
MANUAL_COOLDOWN_S: Final = 600
# Interval at which an unchanged alert stores its time and number again.
REFRESH_S: Final = 30.0

Key = tuple[AlertRule, str]


@dataclass(frozen=True, slots=True)
class ResolvedAlert:
    """Last end of an alert with one rule and subject."""

    at: datetime
    resolution: Resolution


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Unresolved alerts, critical first, and the changes that led to them."""

    active: tuple[Alert, ...]
    saved: tuple[Alert, ...]  # new or changed in any way
    dropped: tuple[str, ...]  # ids of pending ones that never opened
    raised: tuple[Alert, ...]  # opened, or woken from a snooze
    ended: tuple[Alert, ...]

    @property
    def has_changes(self) -> bool:
        """True if a change has to be stored."""
        return bool(self.saved or self.dropped)


@dataclass(slots=True)
class _EvaluationState:
    """State accumulated while the rules are evaluated in order."""

    now: datetime
    ended: Mapping[Key, ResolvedAlert]
    new_id: Callable[[], str]
    remaining: dict[Key, Alert]
    active: list[Alert]
    saved: list[Alert]
    dropped: list[str]
    raised: list[Alert]
    resolved: list[Alert]

    def raise_or_update(self, active_rule: ActiveRule, reading: RuleReading) -> None:
        """Raises or updates the alert of a reading beyond its limit."""
        known = self.remaining.pop((active_rule.rule, reading.subject), None)
        if known is None:
            new = _create_alert(active_rule, reading, self.now, self.new_id())
            self.add_active(self.open_if_due(new, active_rule), is_new=True)
            return
        alert = replace(
            known,
            symbols=reading.symbols,
            severity=active_rule.settings.severity,
            value=reading.value,
            limit=active_rule.limit,
            message=reading.message,
        )
        if alert.state is AlertState.PENDING:
            alert = self.open_if_due(alert, active_rule)
        elif alert.snoozed_until is not None and alert.snoozed_until <= self.now:
            alert = alert.wake()
            self.raised.append(alert)
        # A changed number alone is not stored, because every evaluation would write it.
        is_same = replace(alert, value=known.value, message=known.message) == known
        is_stale = (self.now - known.last_seen_at).total_seconds() >= REFRESH_S
        if is_stale or not is_same:
            alert = replace(alert, last_seen_at=self.now)
        self.add_active(alert, is_new=is_stale or not is_same)

    def open_if_due(self, alert: Alert, active_rule: ActiveRule) -> Alert:
        """Opens a pending alert once its duration and cooldown have passed."""
        if self.now < _earliest_opening(alert, active_rule, self.ended.get(alert.key)):
            return alert
        alert = alert.open(self.now)
        self.raised.append(alert)
        return alert

    def add_active(self, alert: Alert, *, is_new: bool) -> None:
        self.active.append(alert)
        if is_new:
            self.saved.append(alert)

    def end(self, alert: Alert, resolution: Resolution) -> None:
        if alert.state is AlertState.PENDING:
            self.dropped.append(alert.id)
            return
        resolved = alert.resolve(self.now, resolution)
        self.saved.append(resolved)
        self.resolved.append(resolved)


def evaluate(
    active: Iterable[Alert],
    facts: Facts,
    configuration: Configuration,
    ended: Mapping[Key, ResolvedAlert],
    new_id: Callable[[], str],
) -> Evaluation:
    """Evaluates every rule over `facts`.

    An alert opens when its condition has held for `duration_s` and `cooldown_s` have passed since
    the last one ended. It ends when the number is back beyond the clear limit, when its subject
    no longer exists or when its rule is disabled. Unknown inputs change nothing.
    """
    found = {alert.key: alert for alert in active}
    state = _EvaluationState(facts.at, ended, new_id, found, [], [], [], [], [])
    for rule in RULES:
        _evaluate_rule(state, rule, facts, configuration)
    return Evaluation(
        tuple(sorted(state.active, key=sort_key)),
        tuple(state.saved),
        tuple(state.dropped),
        tuple(state.raised),
        tuple(state.resolved),
    )


def _evaluate_rule(
    state: _EvaluationState, rule: AlertRule, facts: Facts, configuration: Configuration
) -> None:
    active_rule = activate_rule(rule, configuration)
    if not active_rule.settings.enabled:
        for alert in _take_alerts(rule, state.remaining):
            state.end(alert, Resolution.DISABLED)
        return
    seen = RULES[rule].read(facts, configuration)
    if seen is None:
        for alert in _take_alerts(rule, state.remaining):
            state.add_active(alert, is_new=False)
        return
    for reading in seen:
        _evaluate_reading(state, active_rule, reading)
    for alert in _take_alerts(rule, state.remaining):
        state.end(alert, Resolution.CLEARED)


def _evaluate_reading(
    state: _EvaluationState, active_rule: ActiveRule, reading: RuleReading
) -> None:
    known = state.remaining.get((active_rule.rule, reading.subject))
    is_open = known is not None and known.state is not AlertState.PENDING
    is_exceeded = reading.is_exceeded(
        active_rule.side, active_rule.clear_limit if is_open else active_rule.limit
    )
    if is_exceeded is None:
        if known is not None:
            state.add_active(state.remaining.pop(known.key), is_new=False)
        return
    if is_exceeded:
        state.raise_or_update(active_rule, reading)


def _take_alerts(rule: AlertRule, found: dict[Key, Alert]) -> Iterator[Alert]:
    """Removes and yields the remaining alerts of a rule."""
    for key in [key for key in found if key[0] is rule]:
        yield found.pop(key)


def _create_alert(
    active_rule: ActiveRule, reading: RuleReading, at: datetime, alert_id: str
) -> Alert:
    return Alert(
        id=alert_id,
        rule=active_rule.rule,
        subject=reading.subject,
        symbols=reading.symbols,
        severity=active_rule.settings.severity,
        state=AlertState.PENDING,
        value=reading.value,
        limit=active_rule.limit,
        message=reading.message,
        since=at,
        last_seen_at=at,
    )


def _earliest_opening(
    alert: Alert, active_rule: ActiveRule, ended: ResolvedAlert | None
) -> datetime:
    """Earliest time at which a pending alert may open."""
    after_duration = alert.since + timedelta(seconds=active_rule.settings.duration_s)
    if ended is None:
        return after_duration
    cooldown = active_rule.settings.cooldown_s
    if ended.resolution is Resolution.OPERATOR:
        cooldown = max(cooldown, MANUAL_COOLDOWN_S)
    return max(after_duration, ended.at + timedelta(seconds=cooldown))
