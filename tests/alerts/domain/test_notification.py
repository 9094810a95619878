"""What is news, how often it is told, and when it is tried again."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.alerts.domain.event_texts import ALERT_CATEGORIES, EVENT_TEXTS
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
from app.configuration.domain.document import ConfigurationRefusedError, validate
from app.configuration.domain.events import ConfigurationChanged, configuration_changed
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import (
    NotificationLimit,
    NotificationPriority,
    NotificationSettings,
    Severity,
)
from app.foundation.events import EventRecord
from app.market.domain.events import SectorsChanged
from app.market.domain.sectors import AssetClass, CapCategory, Classification, SectorChange
from app.operations.domain.event_codec import CODEC, encode_event
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.events import (
    ChangeEntry,
    MemberWeights,
    PortfolioChanged,
    ProposalOpened,
    ProposedWeight,
)
from tests.operations.domain.test_event_codec import EXAMPLES

T0 = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
RULES = NotificationSettings()
PRIORITIES = Configuration().notification_priorities


def record(event: object) -> EventRecord:
    (draft,) = encode_event(event)
    return EventRecord(draft.topic, draft.type, draft.subject, draft.data, draft.occurred_at, 9)


def notice(
    key: str = "k", kind: NotificationKind = NotificationKind.ERROR, seq: int | None = 1
) -> Notification:
    return Notification(kind, NotificationPriority.NORMAL, key, f"about {key}", "", {}, seq)


def critical(key: str, kind: NotificationKind = NotificationKind.ERROR) -> Notification:
    return replace(notice(key, kind), priority=NotificationPriority.IMMEDIATE)


def alert(rule: AlertRule = AlertRule.LOW_SCORE, **changes: Any) -> AlertRaised:
    raised = AlertRaised(
        "a-1", rule, "BTCUSDT", ("BTCUSDT",), Severity.WARNING, 0.41, 0.5,
        "BTCUSDT scores 0.41", T0, T0 - timedelta(minutes=5),
    )  # fmt: skip
    return replace(raised, **changes)


def resolved(rule: AlertRule) -> AlertResolved:
    return AlertResolved(
        "a-1", rule, "BTCUSDT", ("BTCUSDT",), Severity.CRITICAL, Resolution.OPERATOR, "user:ana",
        "BTCUSDT scores 0.6", T0, T0 - timedelta(hours=2),
    )  # fmt: skip


def notify(event: object, api_url: str | None = None) -> Notification:
    notification = notification_from_event(record(event), PRIORITIES, api_url)
    assert notification is not None
    return notification


# Kind of the notification about each stored event type; None: no notification.
KINDS: dict[str, NotificationKind | None] = {
    "alert_raised": NotificationKind.ERROR,
    "alert_resolved": NotificationKind.STATUS,
    "portfolio_changed": NotificationKind.TRADE,
    "proposal_opened": NotificationKind.STATUS,
    "configuration_changed": NotificationKind.STATUS,
    "sectors_changed": NotificationKind.STATUS,
    "proposal_decided": None,
    "plan_created": None,
    "mode_changed": None,
    "authentication_burst": None,
    "scores_updated": None,
    "score_changed": None,
    "signal_changed": None,
    "job_changed": None,
    "api_key_changed": None,
    "user_changed": None,
    "session_changed": None,
}


def test_every_event_type_has_its_kind() -> None:
    assert KINDS.keys() == {kind.type for kind in CODEC.kinds} == EVENT_TEXTS.keys()
    for event in EXAMPLES:
        stored = record(event)
        notification = notification_from_event(stored, PRIORITIES)
        kind = None if notification is None else notification.kind
        assert kind is KINDS[stored.type], stored.type
        if notification is not None:
            assert (notification.event_seq, notification.event["sequence"]) == (9, 9)
            assert notification.title


def test_a_type_of_a_newer_version_gives_no_notification_and_no_error() -> None:
    newer = replace(record(alert()), type="of_tomorrow")
    assert notification_from_event(newer, PRIORITIES) is None
    unknown_rule = replace(record(alert()), data={**record(alert()).data, "rule": "of_tomorrow"})
    notification = notification_from_event(unknown_rule, PRIORITIES)
    assert notification is not None
    assert notification.kind is NotificationKind.ERROR


# Rules whose alerts are no errors; every other rule is one.
NO_ERRORS = {
    AlertRule.PORTFOLIO_BELOW_SIZE: NotificationKind.STATUS,
    AlertRule.REPLACEMENT_RECOMMENDED: NotificationKind.STATUS,
    AlertRule.REBALANCE_DONE: NotificationKind.STATUS,
    AlertRule.RECOVERED: NotificationKind.STATUS,
    AlertRule.LARGE_LOSS: NotificationKind.TRADE,
    AlertRule.PROFITABLE_EXIT: NotificationKind.TRADE,
}


@pytest.mark.parametrize("rule", AlertRule)
def test_an_alert_is_an_error_unless_its_rule_reports_work_or_a_result(rule: AlertRule) -> None:
    assert ALERT_CATEGORIES.keys() == set(AlertRule)
    wanted = NO_ERRORS.get(rule, NotificationKind.ERROR)
    for severity in Severity:
        notification = notify(alert(rule, severity=severity))
        assert notification.kind is wanted
        is_immediate = wanted is NotificationKind.ERROR and severity is Severity.CRITICAL
        assert notification.is_critical is is_immediate


@pytest.mark.parametrize("rule", AlertRule)
def test_the_end_of_an_alert_is_news_unless_the_clock_alone_ended_it(rule: AlertRule) -> None:
    by_clock = {
        AlertRule.REBALANCE_DONE,
        AlertRule.RECOVERED,
        AlertRule.LARGE_LOSS,
        AlertRule.PROFITABLE_EXIT,
    }
    notification = notification_from_event(record(resolved(rule)), PRIORITIES)
    if rule in by_clock:
        assert notification is None
    else:
        assert notification is not None
        assert notification.kind is NotificationKind.STATUS
        assert notification.title == f"Resolved: {rule.value} (BTCUSDT)"
        assert notification.body.splitlines() == [
            "Last reading: BTCUSDT scores 0.6.",
            "End: operator by user:ana.",
            "Since: 2026-03-04 03:06:07 UTC, held for 2.0 h.",
        ]


CHANGES: dict[EventType, NotificationKind | None] = {
    EventType.ADD: NotificationKind.TRADE,
    EventType.REMOVE: NotificationKind.TRADE,
    EventType.REPLACE: NotificationKind.TRADE,
    EventType.REBALANCE: NotificationKind.TRADE,
    EventType.WEIGHTS: NotificationKind.TRADE,
    EventType.PERFORMANCE: NotificationKind.TRADE,
    EventType.LOCK: NotificationKind.STATUS,
    EventType.SWITCH: NotificationKind.STATUS,
    EventType.CONFIG: None,  # configuration_changed reports it, as a status
}


@pytest.mark.parametrize("change", EventType)
def test_a_change_of_settings_or_controls_is_no_trade(change: EventType) -> None:
    event = PortfolioChanged(1, 2, change.value, None, T0, reason="best")
    notification = notification_from_event(record(event), PRIORITIES)
    assert (None if notification is None else notification.kind) is CHANGES[change]


def test_an_alert_says_symbol_value_limit_and_age() -> None:
    notification = notify(alert(), "https://desk.example/api/symbol-mgmt")
    assert notification.title == "WARNING: low_score (BTCUSDT): 0.41, limit 0.5"
    assert notification.body.splitlines() == [
        "BTCUSDT scores 0.41.",
        "Symbols: BTCUSDT.",
        "Since: 2026-03-04 05:01:07 UTC, holds for 5.0 min.",
        "Acknowledge: my-symbols alerts acknowledge a-1",
        "Alert: https://desk.example/api/symbol-mgmt/alerts/a-1",
    ]
    state = notify(alert(AlertRule.DATA_STALE, value=None, limit=None, symbols=(), since=None))
    assert state.title == "WARNING: data_stale (BTCUSDT)"
    assert state.body.splitlines() == [
        "BTCUSDT scores 0.41.",
        "Acknowledge: my-symbols alerts acknowledge a-1",
    ]
    assert "limit" not in notify(alert(limit=None)).title


def test_a_change_says_members_and_weights_before_and_after() -> None:
    event = PortfolioChanged(
        8, 13, "REPLACE", None, T0, reason="a better symbol, confirmed", actor="user:ana",
        run_id="run-5", proposal_id="p-7", old_cash_u=60_000_000, cash_u=55_500_000,
        members=(
            MemberWeights("BTCUSDT", "XBTUSDTM", 1, None, 10_000_000),
            MemberWeights("SOLUSDT", "SOLUSDTM", 2, 20_000_000, 14_500_000),
            MemberWeights("XRPUSDT", "XRPUSDTM", 3, 20_000_000, 20_000_000),
            MemberWeights("ETHUSDT", "ETHUSDTM", None, 0, None),
        ),
        entries=(
            ChangeEntry(13, "REPLACE", "BTCUSDT", "ETHUSDT", "a better symbol, confirmed"),
            ChangeEntry(14, "WEIGHTS", None, None, "a better symbol, confirmed"),
        ),
    )  # fmt: skip
    notification = notify(event)
    assert notification.title == "Portfolio: replaced ETHUSDT by BTCUSDT"
    assert notification.body.splitlines() == [
        "Reason: a better symbol, confirmed.",
        "Actor: user:ana.",
        "BTCUSDT: enters with 10.00 %.",
        "SOLUSDT: 20.00 % to 14.50 %.",
        "ETHUSDT: leaves, was 0.00 %.",
        "Members: 3 before, 3 after.",
        "Cash: 60.00 % to 55.50 %.",
        "Portfolio version: 8.",
        "Rebalance run: run-5.",
        "Approved proposal: p-7.",
    ]
    plain = notify(PortfolioChanged(8, 13, "WEIGHTS", None, T0))
    assert (plain.title, plain.body) == ("Portfolio: weights set", "Portfolio version: 8.")


def test_a_change_of_many_members_names_five_of_a_kind() -> None:
    entries = [ChangeEntry(n, "ADD", f"S{n}USDT", None, None) for n in range(7)]
    entries += [ChangeEntry(7, "REMOVE", "BTCUSDT", None, None)]
    event = PortfolioChanged(8, 0, "ADD", None, T0, entries=tuple(entries))
    assert notify(event).title == (
        "Portfolio: added S0USDT, S1USDT, S2USDT, S3USDT, S4USDT and 2 more; removed BTCUSDT"
    )


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        (("CONFIG",), None),
        (("CONFIG", "REMOVE", "WEIGHTS"), NotificationKind.TRADE),
        (("LOCK", "REMOVE"), NotificationKind.TRADE),
        (("LOCK", "CONFIG"), NotificationKind.STATUS),
    ],
)
def test_a_version_with_several_changes_is_a_trade_if_one_of_them_is(
    types: tuple[str, ...], kind: NotificationKind | None
) -> None:
    entries = tuple(ChangeEntry(at, one, "BTCUSDT", None, None) for at, one in enumerate(types))
    event = PortfolioChanged(1, 2, types[0], "BTCUSDT", T0, entries=entries)
    notification = notification_from_event(record(event), PRIORITIES)
    assert (None if notification is None else notification.kind) is kind


def test_a_proposal_names_its_id_and_how_to_approve_it() -> None:
    event = ProposalOpened(
        "p-7", "rebalance", "portfolio", 3, T0 + timedelta(days=1), T0, reason="drift",
        weights=(ProposedWeight("BTCUSDT", 20_000_000, 18_250_000),),
    )  # fmt: skip
    plain = notify(event).body
    assert plain.splitlines() == [
        "Reason: drift.",
        "BTCUSDT: 20.00 % to 18.25 %.",
        "Proposal: p-7, for version 3 of the portfolio.",
        "Waits for a decision until 2026-03-05 05:06:07 UTC.",
        "Approve: my-symbols portfolio approve p-7",
        "Decline: my-symbols portfolio decline p-7",
    ]
    linked = notify(event, "https://desk.example/api/symbol-mgmt").body
    assert linked == (
        f"{plain}\nApprove by POST:"
        " https://desk.example/api/symbol-mgmt/portfolio/proposals/p-7/approve"
    )
    swap = replace(event, leaving="ETHUSDT", entering="BTCUSDT", weights=(), reason=None)
    assert notify(swap).body.splitlines()[:2] == ["ETHUSDT: would leave.", "BTCUSDT: would enter."]


def test_changed_settings_are_said_with_their_values() -> None:
    present = Configuration()
    wanted = validate({"entry_score": 0.7, "exit_score": 0.6}, present)
    event = configuration_changed(present, wanted, T0, "stricter", "user:ana")
    assert event.changes == ("entry_score: 0.6 to 0.7", "exit_score: 0.55 to 0.6")
    notification = notify(event)
    assert notification.title == "Settings: version 2 is active"
    assert notification.body.splitlines() == [
        "entry_score: 0.6 to 0.7.",
        "exit_score: 0.55 to 0.6.",
        "Reason: stricter.",
        "Actor: user:ana.",
    ]
    many = replace(event, changes=tuple(f"key{number}: 1 to 2" for number in range(13)))
    assert notify(many).body.splitlines()[9:11] == ["key9: 1 to 2.", "and 3 more."]
    assert notify(ConfigurationChanged(present, T0)).body == ""


def test_changed_sectors_are_said_before_and_after() -> None:
    coin = Classification(AssetClass.COIN, "layer1", CapCategory.LARGE)
    changes = (
        SectorChange("BTC", coin, replace(coin, sector="store")),
        SectorChange("ETH", coin, None),
    )
    notification = notify(SectorsChanged(3, changes, "new research", "user:ana", T0))
    assert notification.title == "Sectors: version 3 is active"
    assert notification.body.splitlines() == [
        "BTC: layer1 to store.",
        "ETH: layer1 to its default.",
        "Reason: new research.",
        "Actor: user:ana.",
    ]


def test_priorities_are_the_customers_and_a_setting() -> None:
    assert {category.value: one.value for category, one in PRIORITIES.items()} == {
        "critical_error": "immediate",
        "error": "high",
        "large_loss": "high",
        "trade": "normal",
        "profitable_exit": "normal",
        "status_update": "low",
    }
    change = {"notification_priorities": {"large_loss": "immediate", "critical_error": "normal"}}
    changed = validate(change, Configuration()).notification_priorities
    loss = record(alert(AlertRule.LARGE_LOSS))
    severe = record(alert(severity=Severity.CRITICAL))
    for priorities, wanted in (
        (PRIORITIES, [NotificationPriority.HIGH, NotificationPriority.IMMEDIATE]),
        (changed, [NotificationPriority.IMMEDIATE, NotificationPriority.NORMAL]),
    ):
        given = [notification_from_event(one, priorities) for one in (loss, severe)]
        assert [one and one.priority for one in given] == wanted
    with pytest.raises(ConfigurationRefusedError, match="notification_priorities"):
        validate({"notification_priorities": {"large_loss": "soon"}}, Configuration())
    with pytest.raises(ConfigurationRefusedError, match="notification_priorities"):
        validate({"notification_priorities": {"small_loss": "low"}}, Configuration())


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
