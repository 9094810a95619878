"""What is news, how often it is told, and when it is tried again."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.alert_settings import Severity
from app.domain.alerts import Resolution, Rule
from app.domain.configuration import Configuration
from app.domain.event_codec import EventRecord, drafts_of
from app.domain.events import (
    AlertRaised,
    AlertResolved,
    ConfigurationChanged,
    PlanCreated,
    PortfolioChanged,
    ProposalOpened,
)
from app.domain.notification import (
    DIGEST_LINES,
    LIMITS,
    MOST_TRIES,
    Channel,
    ChannelKind,
    Notice,
    NoticeKind,
    Told,
    admitted,
    digest,
    digest_due,
    notice_of,
    pause_s,
)

T0 = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def record(event: object) -> EventRecord:
    (draft,) = drafts_of(event)
    return EventRecord(draft.topic, draft.type, draft.subject, draft.data, draft.occurred_at, 9)


def notice(key: str = "k", kind: NoticeKind = NoticeKind.ERROR, seq: int | None = 1) -> Notice:
    return Notice(kind, False, key, f"about {key}", "", {}, seq)


ALERT = AlertRaised("a", Rule.LOW_SCORE, "BTCUSDT", (), Severity.WARNING, 0.1, 0.2, "low", T0)


@pytest.mark.parametrize(
    ("event", "kind", "critical", "title"),
    [
        (ALERT, NoticeKind.ERROR, False, "WARNING: low_score (BTCUSDT)"),
        (
            AlertRaised("a", Rule.LOW_SCORE, "X", (), Severity.CRITICAL, None, None, "low", T0),
            NoticeKind.ERROR,
            True,
            "CRITICAL: low_score (X)",
        ),
        (
            AlertResolved(
                "a", Rule.LOW_SCORE, "X", (), Severity.CRITICAL, Resolution.CLEARED, None, "ok", T0
            ),
            NoticeKind.STATUS,
            False,
            "Over: low_score (X)",
        ),
        (
            PortfolioChanged(1, 2, "ADD", "BTCUSDT", T0, reason="best"),
            NoticeKind.TRADE,
            False,
            "Portfolio: ADD BTCUSDT",
        ),
        (
            PortfolioChanged(1, 2, "WEIGHTS", None, T0),
            NoticeKind.TRADE,
            False,
            "Portfolio: WEIGHTS",
        ),
        (
            ProposalOpened("p", "rebalance", "portfolio", 1, T0, T0),
            NoticeKind.STATUS,
            False,
            "Proposed: rebalance of portfolio",
        ),
        (
            ConfigurationChanged(Configuration(), T0),
            NoticeKind.STATUS,
            False,
            "Settings: version 1 is in force",
        ),
    ],
)
def test_an_event_that_is_news_is_told_with_its_number(
    event: object, kind: NoticeKind, critical: bool, title: str
) -> None:
    told = notice_of(record(event))
    assert told is not None
    assert (told.kind, told.is_critical, told.title) == (kind, critical, title)
    assert (told.event_seq, told.event["sequence"]) == (9, 9)
    assert told.event["occurred_at"] == "2026-03-04T05:06:07Z"


def test_what_is_no_news_is_not_told() -> None:
    assert notice_of(record(PlanCreated("run", 1, 0, T0))) is None


@pytest.mark.parametrize("kind", NoticeKind)
def test_a_kind_has_so_many_an_hour(kind: NoticeKind) -> None:
    most = LIMITS[kind].per_hour
    told = [Told(kind, f"k{number}", T0) for number in range(most)]
    assert admitted(notice("new", kind), told[1:], T0)
    assert not admitted(notice("new", kind), told, T0 + timedelta(minutes=59))
    assert admitted(notice("new", kind), told, T0 + timedelta(minutes=60))
    others = [Told(one, "k", T0) for one in NoticeKind if one is not kind for _ in range(100)]
    assert admitted(notice("new", kind), others, T0)


@pytest.mark.parametrize("kind", NoticeKind)
def test_the_same_thing_waits_and_what_is_critical_does_not(kind: NoticeKind) -> None:
    cooldown = timedelta(seconds=LIMITS[kind].cooldown_s)
    told = [Told(kind, "k", T0)]
    assert not admitted(notice("k", kind), told, T0 + cooldown - timedelta(seconds=1))
    assert admitted(notice("k", kind), told, T0 + cooldown)
    assert admitted(Notice(kind, True, "k", "", ""), told * 100, T0)
    assert not digest_due(kind, T0, T0 + cooldown - timedelta(seconds=1))
    assert digest_due(kind, T0, T0 + cooldown)


def test_a_digest_names_what_was_held_back() -> None:
    few = digest([notice("a"), notice("b", seq=None)])
    assert (few.title, few.body) == ("2 more of kind error", "about a\nabout b")
    assert few.event == {"sequences": [1]}
    many = digest([notice(f"k{number}") for number in range(DIGEST_LINES + 3)])
    assert many.body.splitlines()[-1] == "and 3 more"
    assert len(many.body.splitlines()) == DIGEST_LINES + 1


def test_pauses_grow_from_a_minute_to_six_hours() -> None:
    pauses = [pause_s(tries, 0.0) for tries in range(1, MOST_TRIES)]
    assert pauses[0] == 60
    assert pauses == sorted(pauses)
    assert pauses[-1] == 6 * 3_600
    assert pause_s(1, 1.0) == pytest.approx(72.0)


def test_a_channel_that_is_printed_shows_no_secret() -> None:
    made = Channel("c", "n", ChannelKind.WEBHOOK, "https://token", "hush", (), True, T0)
    assert "token" not in repr(made)
    assert "hush" not in repr(made)
