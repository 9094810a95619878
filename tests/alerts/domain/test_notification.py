"""What is news, how often it is told, and when it is tried again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.alerts.domain.events import AlertRaised, AlertResolved
from app.alerts.domain.models import AlertRule, Resolution
from app.alerts.domain.notifications import (
    DIGEST_LINES,
    MAX_ATTEMPTS,
    Channel,
    ChannelKind,
    Notification,
    NotificationKind,
    RecentNotification,
    digest,
    is_admitted,
    is_digest_due,
    notification_from_event,
    rate_limit,
    remaining_quota,
    retry_delay_s,
    suppressed_count,
)
from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import NotificationLimit, NotificationSettings, Severity
from app.foundation.events import EventRecord
from app.operations.domain.event_codec import encode_event
from app.portfolio.domain.events import PlanCreated, PortfolioChanged, ProposalOpened

T0 = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
RULES = NotificationSettings()


def record(event: object) -> EventRecord:
    (draft,) = encode_event(event)
    return EventRecord(draft.topic, draft.type, draft.subject, draft.data, draft.occurred_at, 9)


def notice(
    key: str = "k", kind: NotificationKind = NotificationKind.ERROR, seq: int | None = 1
) -> Notification:
    return Notification(kind, False, key, f"about {key}", "", {}, seq)


def critical(key: str, kind: NotificationKind = NotificationKind.ERROR) -> Notification:
    return replace(notice(key, kind), is_critical=True)


ALERT = AlertRaised("a", AlertRule.LOW_SCORE, "BTCUSDT", (), Severity.WARNING, 0.1, 0.2, "low", T0)


@pytest.mark.parametrize(
    ("event", "kind", "critical", "title"),
    [
        (ALERT, NotificationKind.ERROR, False, "WARNING: low_score (BTCUSDT)"),
        (
            AlertRaised(
                "a", AlertRule.LOW_SCORE, "X", (), Severity.CRITICAL, None, None, "low", T0
            ),
            NotificationKind.ERROR,
            True,
            "CRITICAL: low_score (X)",
        ),
        (
            AlertResolved(
                "a",
                AlertRule.LOW_SCORE,
                "X",
                (),
                Severity.CRITICAL,
                Resolution.CLEARED,
                None,
                "ok",
                T0,
            ),
            NotificationKind.STATUS,
            False,
            "Resolved: low_score (X)",
        ),
        (
            PortfolioChanged(1, 2, "ADD", "BTCUSDT", T0, reason="best"),
            NotificationKind.TRADE,
            False,
            "Portfolio: ADD BTCUSDT",
        ),
        (
            PortfolioChanged(1, 2, "WEIGHTS", None, T0),
            NotificationKind.TRADE,
            False,
            "Portfolio: WEIGHTS",
        ),
        (
            ProposalOpened("p", "rebalance", "portfolio", 1, T0, T0),
            NotificationKind.STATUS,
            False,
            "Proposed: rebalance of portfolio",
        ),
        (
            ConfigurationChanged(Configuration(), T0),
            NotificationKind.STATUS,
            False,
            "Settings: version 1 is active",
        ),
    ],
)
def test_an_event_that_is_news_is_told_with_its_number(
    event: object, kind: NotificationKind, critical: bool, title: str
) -> None:
    told = notification_from_event(record(event))
    assert told is not None
    assert (told.kind, told.is_critical, told.title) == (kind, critical, title)
    assert (told.event_seq, told.event["sequence"]) == (9, 9)
    assert told.event["occurred_at"] == "2026-03-04T05:06:07Z"


def test_what_is_no_news_is_not_told() -> None:
    assert notification_from_event(record(PlanCreated("run", 1, 0, T0))) is None


def test_the_limits_are_those_that_were_asked_for() -> None:
    limits = {kind: rate_limit(kind, RULES) for kind in NotificationKind}
    assert limits == {
        NotificationKind.ERROR: NotificationLimit(10, 300),
        NotificationKind.TRADE: NotificationLimit(50, 60),
        NotificationKind.STATUS: NotificationLimit(5, 600),
    }


@pytest.mark.parametrize("kind", NotificationKind)
def test_a_kind_has_so_many_an_hour(kind: NotificationKind) -> None:
    most = rate_limit(kind, RULES).per_hour
    told = [RecentNotification(kind, f"k{number}", T0) for number in range(most)]
    assert is_admitted(notice("new", kind), told[1:], 0, T0, RULES)
    assert not is_admitted(notice("new", kind), told, 0, T0 + timedelta(minutes=59), RULES)
    assert is_admitted(notice("new", kind), told, 0, T0 + timedelta(minutes=60), RULES)
    others = [
        RecentNotification(one, "k", T0)
        for one in NotificationKind
        if one is not kind
        for _ in range(100)
    ]
    assert is_admitted(notice("new", kind), others, 0, T0, RULES)
    wider = NotificationLimit(most + 1, 60)
    more = NotificationSettings(error=wider, trade=wider, status=wider)
    assert is_admitted(notice("new", kind), told, 0, T0, more)


@pytest.mark.parametrize("kind", NotificationKind)
def test_the_same_thing_waits_and_what_is_critical_does_not(kind: NotificationKind) -> None:
    cooldown = timedelta(seconds=rate_limit(kind, RULES).cooldown_s)
    told = [RecentNotification(kind, "k", T0)]
    early = T0 + cooldown - timedelta(seconds=1)
    assert not is_admitted(notice("k", kind), told, 0, early, RULES)
    assert is_admitted(notice("k", kind), told, 0, T0 + cooldown, RULES)
    assert is_admitted(critical("k", kind), told * 100, 0, T0, RULES)
    assert not is_digest_due([notice("k", kind)], T0, early, RULES)
    assert is_digest_due([notice("k", kind)], T0, T0 + cooldown, RULES)


def test_E06_a_storm_of_what_is_critical_is_told_in_one_piece_within_a_minute() -> None:
    assert is_admitted(critical("k"), [], RULES.per_minute - 1, T0, RULES)
    assert not is_admitted(critical("k"), [], RULES.per_minute, T0, RULES)
    held = [notice("a"), critical("b"), notice("c")]
    assert not is_digest_due(held, T0, T0 + timedelta(seconds=59), RULES)
    assert is_digest_due(held, T0, T0 + timedelta(seconds=60), RULES)
    whole = digest(held)
    assert whole.is_critical
    assert whole.body.splitlines() == ["about b", "about a", "about c"]


@pytest.mark.parametrize(
    ("most", "delivered", "left"),
    [(30, 0, (30, 20)), (30, 19, (11, 1)), (30, 20, (10, 0)), (30, 31, (0, 0)), (1, 0, (1, 1))],
)
def test_E06_a_part_of_each_minute_is_kept_free_for_what_is_critical(
    most: int, delivered: int, left: tuple[int, int]
) -> None:
    assert remaining_quota(delivered, replace(RULES, per_minute=most)) == left


def test_a_digest_names_what_was_held_back() -> None:
    few = digest([notice("a"), notice("b", seq=None)])
    assert (few.title, few.body) == ("2 more of kind error", "about a\nabout b")
    assert few.event == {"sequences": [1]}
    assert not few.is_critical
    many = digest([notice(f"k{number}") for number in range(DIGEST_LINES + 3)])
    assert many.body.splitlines()[-1] == "and 3 more"
    assert len(many.body.splitlines()) == DIGEST_LINES + 1


def test_E06_a_digest_counts_those_that_were_not_even_kept() -> None:
    few = digest([notice("a"), suppressed_count(NotificationKind.ERROR, 40)])
    assert (few.title, few.body) == (
        "41 more of kind error",
        "about a\n40 more without titles",
    )
    many = [notice(f"k{number}") for number in range(DIGEST_LINES + 3)]
    assert (
        digest([*many, suppressed_count(NotificationKind.ERROR, 40)]).body.splitlines()[-1]
        == "and 43 more"
    )


def test_pauses_grow_from_a_minute_to_six_hours() -> None:
    pauses = [retry_delay_s(attempts, 0.0) for attempts in range(1, MAX_ATTEMPTS)]
    assert pauses[0] == 60
    assert pauses == sorted(pauses)
    assert pauses[-1] == 6 * 3_600
    assert retry_delay_s(1, 1.0) == pytest.approx(72.0)


def test_a_channel_that_is_printed_shows_no_secret() -> None:
    made = Channel("c", "n", ChannelKind.WEBHOOK, "https://token", "hush", (), True, T0)
    assert "token" not in repr(made)
    assert "hush" not in repr(made)
