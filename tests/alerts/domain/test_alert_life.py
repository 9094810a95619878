"""The life of an alert: when it opens, what moves it, when it ends, and when it may come back."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.alerts.domain.facts import Facts, MemberFacts, PortfolioFacts, SystemFacts
from app.alerts.domain.lifecycle import (
    MANUAL_COOLDOWN_S,
    REFRESH_S,
    Evaluation,
    ResolvedAlert,
    evaluate,
)
from app.alerts.domain.models import (
    TRANSITIONS,
    Alert,
    AlertRule,
    AlertState,
    AlertTransition,
    Resolution,
)
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import MarginRule, Severity, StateRule
from app.foundation.errors import Code, ConflictError
from app.market.domain.models import ExchangeLink, LinkState
from tests.support.portfolios import T0

KEY = (AlertRule.LOW_SCORE, "AAUSDT")
MINUTE = timedelta(minutes=1)


def settings(low_score: Any = None, **rules: Any) -> Configuration:
    """Only low_score is on, as given; other rules by name."""
    configuration = Configuration()
    chosen = {"low_score": low_score or MarginRule(clear_margin=0.02), **rules}
    return replace(
        configuration,
        alerts=replace(configuration.alerts, rules=replace(configuration.alerts.rules, **chosen)),
    )


def scored(score: float | None, at: datetime = T0) -> Facts:
    return Facts(at, at, PortfolioFacts((MemberFacts("AAUSDT", "Open", True, score, None),)))


def look(
    facts: Facts,
    active: Iterable[Alert] = (),
    configuration: Configuration | None = None,
    ended: Mapping[tuple[AlertRule, str], ResolvedAlert] | None = None,
) -> Evaluation:
    numbers = count(1)
    return evaluate(
        active,
        facts,
        configuration or settings(),
        ended or {},
        lambda: f"{facts.at.isoformat()}-{next(numbers)}",
    )


def opened() -> Alert:
    (alert,) = look(scored(0.4)).active
    return alert


def test_it_opens_at_once_where_nothing_says_to_wait() -> None:
    seen = look(scored(0.4))
    assert seen.saved == seen.raised == seen.active
    (alert,) = seen.active
    assert (alert.state, alert.since, alert.opened_at) == (AlertState.OPEN, T0, T0)
    assert look(scored(0.5)).active == ()


def test_it_must_hold_for_its_duration_and_a_shorter_time_leaves_no_trace() -> None:
    patient = settings(MarginRule(duration_s=120))
    first = look(scored(0.4), (), patient)
    (waiting,) = first.active
    assert (waiting.state, waiting.opened_at, first.raised) == (AlertState.PENDING, None, ())
    second = look(scored(0.4, T0 + MINUTE), first.active, patient)
    assert second.active[0].state is AlertState.PENDING
    third = look(scored(0.3, T0 + 2 * MINUTE), second.active, patient)
    (alert,) = third.raised
    assert (alert.id, alert.since, alert.opened_at) == (waiting.id, T0, T0 + 2 * MINUTE)
    assert (alert.value, third.dropped) == (0.3, ())
    calm = look(scored(0.6, T0 + MINUTE), first.active, patient)
    assert (calm.active, calm.dropped, calm.ended) == ((), (waiting.id,), ())


def test_U09_a_number_around_its_limit_opens_and_ends_once_in_ten_minutes() -> None:
    flapping = settings(MarginRule(clear_margin=0.02, cooldown_s=600))
    active: tuple[Alert, ...] = ()
    ended: dict[tuple[AlertRule, str], ResolvedAlert] = {}
    moves: list[tuple[str, datetime]] = []
    for minute in range(60):
        # within the margin, and now and then far beyond it
        score = 0.6 if minute % 4 == 3 else 0.49 if minute % 2 == 0 else 0.51
        seen = look(scored(score, T0 + minute * MINUTE), active, flapping, ended)
        active = seen.active
        moves += [("raised", T0 + minute * MINUTE) for _ in seen.raised]
        for alert in seen.ended:
            moves.append(("ended", T0 + minute * MINUTE))
            assert alert.resolved_at is not None
            assert alert.resolution is not None
            ended[alert.key] = ResolvedAlert(alert.resolved_at, alert.resolution)
    raised = [at for what, at in moves if what == "raised"]
    assert len(raised) >= 3
    assert all(later - one >= 10 * MINUTE for one, later in pairwise(raised))
    assert [what for what, _ in moves[:4]] == ["raised", "ended", "raised", "ended"]


def test_A2_it_ends_only_where_the_number_is_back_beyond_the_margin() -> None:
    within = look(scored(0.519, T0 + MINUTE), [opened()])
    assert [one.state for one in within.active] == [AlertState.OPEN]
    assert within.active[0].value == 0.519
    over = look(scored(0.52, T0 + MINUTE), within.active)
    assert over.active == ()
    (ended,) = over.ended
    assert (ended.state, ended.resolution) == (AlertState.RESOLVED, Resolution.CLEARED)
    assert (ended.resolved_at, ended.resolved_by) == (T0 + MINUTE, None)


def test_what_is_unknown_neither_raises_nor_ends() -> None:
    alert = opened()
    seen = look(scored(None, T0 + MINUTE), [alert])
    assert (seen.active, seen.saved, seen.ended) == ((alert,), (), ())
    assert look(scored(None)).active == ()


def test_A3_a_service_that_knows_nothing_yet_changes_no_alert() -> None:
    link = ExchangeLink(LinkState.DOWN, T0, "exchange_banned", "blocked", None, 30.0)
    seen = look(Facts(T0, T0, system=SystemFacts(link=link)))
    started = look(Facts(T0 + MINUTE, T0, system=SystemFacts()), seen.active)
    assert started.active == seen.active
    assert not started.has_changes


def test_a_subject_that_is_gone_ends_its_alert() -> None:
    seen = look(Facts(T0 + MINUTE, T0), [opened()])
    assert [one.resolution for one in seen.ended] == [Resolution.CLEARED]


def test_a_rule_that_is_switched_off_ends_its_alerts_and_drops_what_waits() -> None:
    off = settings(MarginRule(enabled=False))
    seen = look(scored(0.4, T0 + MINUTE), [opened()], off)
    assert [one.resolution for one in seen.ended] == [Resolution.DISABLED]
    waiting = look(scored(0.4), (), settings(MarginRule(duration_s=60))).active
    assert look(scored(0.4), waiting, off).dropped == (waiting[0].id,)


def test_after_its_end_it_waits_for_its_cooldown() -> None:
    calm = settings(MarginRule(cooldown_s=300))
    ended = {KEY: ResolvedAlert(T0, Resolution.CLEARED)}
    early = look(scored(0.4, T0 + 4 * MINUTE), (), calm, ended)
    assert [one.state for one in early.active] == [AlertState.PENDING]
    late = look(scored(0.4, T0 + 5 * MINUTE), early.active, calm, ended)
    assert [one.state for one in late.active] == [AlertState.OPEN]


def test_what_somebody_ended_rests_for_ten_minutes_at_least() -> None:
    ended = {KEY: ResolvedAlert(T0, Resolution.OPERATOR)}
    rest = timedelta(seconds=MANUAL_COOLDOWN_S)
    for at, state in ((rest - MINUTE, AlertState.PENDING), (rest, AlertState.OPEN)):
        seen = look(scored(0.4, T0 + at), (), None, ended)
        assert [one.state for one in seen.active] == [state]


def test_a_snooze_ends_by_itself_and_is_told_again() -> None:
    quiet = opened().snooze(T0 + 5 * MINUTE, "me")
    still = look(scored(0.4, T0 + 4 * MINUTE), [quiet])
    assert (still.active[0].state, still.raised) == (AlertState.SNOOZED, ())
    awake = look(scored(0.4, T0 + 5 * MINUTE), still.active)
    (alert,) = awake.raised
    assert (alert.state, alert.snoozed_until) == (AlertState.OPEN, None)
    over = look(scored(0.9, T0 + MINUTE), [quiet])
    assert [one.state for one in over.ended] == [AlertState.RESOLVED]


def test_an_acknowledged_alert_is_kept_as_such_while_it_is_seen() -> None:
    known = opened().acknowledge(T0, "me")
    seen = look(scored(0.3, T0 + MINUTE), [known])
    (alert,) = seen.active
    assert (alert.state, alert.value, alert.last_seen_at) == (
        AlertState.ACKNOWLEDGED,
        0.3,
        T0 + MINUTE,
    )
    assert (seen.saved, seen.raised) == ((alert,), ())


def test_seen_again_without_news_is_written_seldom() -> None:
    alert = opened()
    soon = look(scored(0.4, T0 + timedelta(seconds=REFRESH_S - 1)), [alert])
    assert not soon.has_changes
    later = look(scored(0.4, T0 + timedelta(seconds=REFRESH_S)), [alert])
    assert [one.last_seen_at for one in later.saved] == [T0 + timedelta(seconds=REFRESH_S)]
    assert later.raised == ()


def test_settings_that_change_show_in_the_alert() -> None:
    grave = settings(MarginRule(severity=Severity.CRITICAL))
    (alert,) = look(scored(0.4, T0 + MINUTE), [opened()], grave).active
    assert alert.severity is Severity.CRITICAL


def test_every_move_is_in_the_table_or_refused() -> None:
    alert = opened()
    moves: dict[AlertTransition, Any] = {
        AlertTransition.RAISE: lambda one: one.open(T0),
        AlertTransition.ACKNOWLEDGE: lambda one: one.acknowledge(T0, "me"),
        AlertTransition.SNOOZE: lambda one: one.snooze(T0 + MINUTE, "me"),
        AlertTransition.WAKE: lambda one: one.wake(),
        AlertTransition.RESOLVE: lambda one: one.resolve(T0, Resolution.OPERATOR, "me"),
    }
    for state in AlertState:
        for step, move in moves.items():
            one = replace(alert, state=state)
            if (state, step) in TRANSITIONS:
                assert move(one).state is TRANSITIONS[state, step]
                continue
            with pytest.raises(ConflictError) as refused:
                move(one)
            assert refused.value.code is Code.ALERT_STATE
    assert not any(state is AlertState.RESOLVED for state, _ in TRANSITIONS)


def test_acknowledging_again_keeps_who_was_first() -> None:
    first = opened().acknowledge(T0, "one")
    assert first.acknowledge(T0 + MINUTE, "other") is first


scores = st.lists(
    st.one_of(st.none(), st.sampled_from([0.3, 0.49, 0.5, 0.51, 0.52, 0.9])),
    min_size=1,
    max_size=30,
)


@given(scores, st.sampled_from([0, 60, 180]), st.sampled_from([0, 120, 600]))
def test_A1_whatever_is_seen_there_is_one_alert_and_none_ends_that_was_not_raised(
    walk: list[float | None], duration_s: int, cooldown_s: int
) -> None:
    rule = MarginRule(duration_s=duration_s, cooldown_s=cooldown_s, clear_margin=0.02)
    active: tuple[Alert, ...] = ()
    ended: dict[tuple[AlertRule, str], ResolvedAlert] = {}
    balance = 0
    for minute, score in enumerate(walk):
        at = T0 + minute * MINUTE
        seen = look(scored(score, at), active, settings(rule), ended)
        again = look(scored(score, at), seen.active, settings(rule), ended)
        assert not again.has_changes, "a second look at the same finds nothing new"
        active = seen.active
        assert len(active) <= 1
        balance += len(seen.raised) - len(seen.ended)
        assert balance == sum(one.state is not AlertState.PENDING for one in active)
        ended |= {one.key: ResolvedAlert(at, Resolution.CLEARED) for one in seen.ended}
        for one in active:
            assert (one.state is AlertState.PENDING) == (one.opened_at is None)


def test_the_gravest_comes_first() -> None:
    facts = Facts(T0, T0, PortfolioFacts((MemberFacts("AAUSDT", "Paused", False, 0.1, None),)))
    seen = look(facts, (), settings(not_tradeable=StateRule(severity=Severity.INFO)))
    assert [one.rule for one in seen.active] == [AlertRule.LOW_SCORE, AlertRule.NOT_TRADEABLE]
