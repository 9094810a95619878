"""Alerts over a real portfolio: raised, moved by people, ended, kept; on both databases."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.alerts.domain.events import AlertRaised, AlertResolved
from app.alerts.domain.models import Alert, AlertRule, AlertState, Resolution, ThresholdSide
from app.alerts.domain.rules import ActiveRule
from app.alerts.services.monitor import AlertScheduler
from app.alerts.services.service import MAX_SNOOZE, AlertFilter
from app.alerts.storage.alerts import AlertRepository
from app.configuration.domain.document import ConfigurationRefusedError
from app.configuration.domain.sections import Severity
from app.foundation.errors import Code, ConflictError, NotFoundError, RefusedError, UnavailableError
from app.foundation.idempotency import Command
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.market.domain.models import ContractStatus, Interval
from app.market.domain.price_quarantine import QuarantineReason
from tests.conftest import MakeDatabase
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

ME = Command("me", "request-9")


# Prices, sectors and risk of the desk are not those of a market.
UNREAL = {
    name: {"enabled": False}
    for name in ("price_anomaly", "sector_concentration", "var_above_limit")
}


async def filled(desk: Desk, size: int) -> None:
    """Members, and the rules that make sense for them."""
    await desk.open()
    await desk.configuration.put({"alerts": {"rules": UNREAL}}, "why", WHO)
    await desk.portfolio.initialize(size, "start", WHO)


async def shown(desk: Desk, **chosen: Any) -> tuple[Alert, ...]:
    return (await desk.alerts.list(AlertFilter(**chosen)))[0]


async def past(desk: Desk, **chosen: Any) -> tuple[Alert, ...]:
    return (await desk.alerts.load_resolved(AlertFilter(**chosen), 50))[0]


async def low(desk: Desk) -> Alert:
    """A member scores low: its alert."""
    await filled(desk, 5)
    desk.score({SYMBOLS[1]: 0.3})
    (alert,) = await shown(desk)
    return alert


async def test_a_member_that_halves_minutes_after_it_came_in_raises_the_drawdown_alert(
    desk: Desk,
) -> None:
    await filled(desk, 5)
    desk.later(minutes=2)
    desk.quote(SYMBOLS[2], mark=Decimal(5))
    desk.score({})
    (alert,) = await shown(desk, rule=AlertRule.DRAWDOWN)
    assert (alert.subject, alert.value) == (SYMBOLS[2], 0.5)
    view = await desk.portfolio.view()
    assert [one.figures.max_drawdown for one in view.members] == [0.0, 0.0, 0.5, 0.0, 0.0]


async def test_a_member_that_leaves_raises_the_alert_of_its_result_once(desk: Desk) -> None:
    await filled(desk, 5)
    desk.later(minutes=2)
    loser, winner, unknown = SYMBOLS[1], SYMBOLS[2], SYMBOLS[3]
    desk.quote(loser, mark=Decimal(8))
    desk.quote(winner, mark=Decimal(11))
    desk.quote(unknown, mark=None)
    desk.score({})
    await desk.portfolio.replace(loser, SYMBOLS[7], "weak", WHO)
    await desk.portfolio.remove(winner, "enough", ME)
    await desk.portfolio.remove(unknown, "enough", Command("me", "request-10"))
    results = (AlertRule.LARGE_LOSS, AlertRule.PROFITABLE_EXIT)
    for _ in range(2):
        left = [one for one in await shown(desk) if one.rule in results]
        assert [(one.rule, one.symbols, one.value) for one in left] == [
            (AlertRule.LARGE_LOSS, (loser,), 0.2),
            (AlertRule.PROFITABLE_EXIT, (winner,), 0.1),
        ]
    desk.later(hours=1)
    assert not [one for one in await shown(desk) if one.rule in results]
    assert {one.rule for one in await past(desk)} >= set(results)


async def test_members_that_move_with_the_market_raise_the_raw_alert_alone(desk: Desk) -> None:
    """Their residuals are unrelated, and yet they fall together."""
    await filled(desk, 5)
    daily = desk.market.panels[Interval.DAY]
    close = daily.close.copy()
    for name in SYMBOLS[1:3]:  # a tenth of its own moves, and the market's
        column = daily.symbols.index(name)
        close[:, column] **= 0.1
        close[:, column] *= close[:, daily.symbols.index("BTCUSDT")]
    desk.market.panels[Interval.DAY] = replace(daily, close=close)
    report = await desk.queries.correlation()
    pair = f"{SYMBOLS[1]}-{SYMBOLS[2]}"
    own, raw = report.correlations[pair], report.raw[pair]
    assert own is not None
    assert own < 0.5
    assert raw > 0.9
    assert await shown(desk, rule=AlertRule.HIGH_CORRELATION) == ()
    (alert,) = await shown(desk, rule=AlertRule.HIGH_RAW_CORRELATION)
    assert (alert.subject, alert.limit) == (pair, 0.9)
    assert alert.value == pytest.approx(raw)
    rules = {**UNREAL, "high_raw_correlation": {"limit": 0.999, "clear_margin": 0.0}}
    await desk.configuration.put({"alerts": {"rules": rules}}, "another limit", WHO)
    assert await shown(desk, rule=AlertRule.HIGH_RAW_CORRELATION) == ()


async def test_all_four_rules_fire_and_can_be_chosen_from(desk: Desk) -> None:
    await filled(desk, 5)
    assert await shown(desk) == ()
    desk.status(SYMBOLS[0], ContractStatus.PAUSED)
    desk.score({SYMBOLS[1]: 0.3})
    desk.quote(SYMBOLS[2], mark=Decimal(7))
    panel = desk.market.panels[Interval.DAY]
    close = panel.close.copy()
    close[:, panel.symbols.index(SYMBOLS[4])] = close[:, panel.symbols.index(SYMBOLS[3])]
    desk.market.panels[Interval.DAY] = replace(panel, close=close)
    alerts, facts = await desk.alerts.list(AlertFilter())
    # Where one of five falls by a third the others weigh more than they may.
    drifted = [one.subject for one in alerts if one.rule is AlertRule.WEIGHT_OUT_OF_BOUNDS]
    assert drifted == [SYMBOLS[0], SYMBOLS[1], SYMBOLS[3], SYMBOLS[4]]
    first = [one for one in alerts if one.rule is not AlertRule.WEIGHT_OUT_OF_BOUNDS]
    assert [(one.rule, one.subject) for one in first] == [
        (AlertRule.NOT_TRADEABLE, SYMBOLS[0]),
        (AlertRule.DRAWDOWN, SYMBOLS[2]),
        (AlertRule.HIGH_CORRELATION, f"{SYMBOLS[3]}-{SYMBOLS[4]}"),
        (AlertRule.HIGH_RAW_CORRELATION, f"{SYMBOLS[3]}-{SYMBOLS[4]}"),
        (AlertRule.LOW_SCORE, SYMBOLS[1]),
        (AlertRule.POOR_PERFORMANCE, SYMBOLS[2]),
    ]
    assert facts.as_of == alerts[0].since == NOW
    by_symbol = await shown(desk, symbol=f"{SYMBOLS[4].lower()}")
    assert [one.rule for one in by_symbol] == [
        AlertRule.HIGH_CORRELATION,
        AlertRule.HIGH_RAW_CORRELATION,
        AlertRule.WEIGHT_OUT_OF_BOUNDS,
    ]
    critical = await shown(desk, severity=Severity.CRITICAL)
    assert [one.rule for one in critical] == [AlertRule.NOT_TRADEABLE]
    assert [one.value for one in await shown(desk, rule=AlertRule.LOW_SCORE)] == [0.3]
    with pytest.raises(RefusedError):
        await shown(desk, symbol="NOSUCH")


async def test_without_market_data_there_are_no_guesses(desk: Desk) -> None:
    await filled(desk, 3)
    desk.market.quotes.clear()
    desk.market.panels.clear()
    desk.market.seen_at = None
    desk.boards.board = None
    assert await shown(desk) == ()


async def test_an_alert_is_one_row_from_its_start_to_its_end(desk: Desk) -> None:
    alert = await low(desk)
    desk.later(minutes=1)
    desk.score({SYMBOLS[1]: 0.2})
    (seen,) = await shown(desk)
    assert (seen.id, seen.value, seen.since, seen.last_seen_at) == (
        alert.id,
        0.2,
        NOW,
        NOW + timedelta(minutes=1),
    )
    desk.later(minutes=1)
    desk.score({})
    assert await shown(desk) == ()
    (ended,) = await past(desk)
    assert (ended.id, ended.state, ended.resolution) == (
        alert.id,
        AlertState.RESOLVED,
        Resolution.CLEARED,
    )
    assert ended.resolved_at == NOW + timedelta(minutes=2)
    assert await desk.alerts.get(alert.id) == ended


async def test_U10_what_was_raised_survives_a_restart_and_is_not_raised_twice(desk: Desk) -> None:
    alert = await low(desk)
    again = Desk(desk.database)
    again.market, again.boards, again.now = desk.market, desk.boards, desk.now
    again.__post_init__()
    assert [one.id for one in await shown(again)] == [alert.id]
    # What comes while nobody runs is raised by the first look after it.
    again.status(SYMBOLS[0], ContractStatus.PAUSED)
    assert [one.rule for one in await shown(again)] == [
        AlertRule.NOT_TRADEABLE,
        AlertRule.LOW_SCORE,
    ]


async def test_C11_many_looks_at_once_make_one_alert(desk: Desk, database: Database) -> None:
    await filled(desk, 5)
    desk.score({SYMBOLS[1]: 0.3})
    others = [Desk(database) for _ in range(4)]
    for number, other in enumerate(others):
        other.market, other.boards, other.now = desk.market, desk.boards, desk.now
        other.__post_init__()
        ids = iter(f"{number}-{at}" for at in range(100))
        other.alerts = replace(other.alerts, new_id=lambda ids=ids: next(ids))  # type: ignore[misc]  # bound now
    looks = await asyncio.gather(
        *(one.alerts.evaluate() for one in (desk, *others) for _ in range(3))
    )
    assert {len(active) for active, _ in looks} == {1}
    async with database.read() as unit:
        stored = await unit.get(AlertRepository).active()
    assert len(stored) == 1
    assert {active[0].id for active, _ in looks} == {stored[0].id}


async def test_it_is_acknowledged_snoozed_and_ended_by_hand(desk: Desk) -> None:
    alert = await low(desk)
    done = (await desk.alerts.acknowledge(alert.id, ME)).result
    assert done is not None
    assert (done.state, done.acknowledged_by) == (AlertState.ACKNOWLEDGED, "me")
    assert await shown(desk) == ()
    assert [one.id for one in await shown(desk, state=AlertState.ACKNOWLEDGED)] == [alert.id]

    await desk.alerts.snooze(alert.id, timedelta(minutes=5), ME)
    assert [one.snoozed_by for one in await shown(desk, state=AlertState.SNOOZED)] == ["me"]
    desk.later(minutes=5)
    desk.score({SYMBOLS[1]: 0.3})
    assert [one.id for one in await shown(desk)] == [alert.id], "it wakes by itself"

    await desk.alerts.resolve(alert.id, ME)
    assert await shown(desk) == ()
    (ended,) = await past(desk, rule=AlertRule.LOW_SCORE, symbol=SYMBOLS[1])
    assert (ended.resolution, ended.resolved_by) == (Resolution.OPERATOR, "me")
    assert await past(desk, severity=Severity.CRITICAL) == ()
    assert await past(desk, symbol=SYMBOLS[2]) == ()
    with pytest.raises(ConflictError) as refused:
        await desk.alerts.acknowledge(alert.id, ME)
    assert refused.value.code is Code.ALERT_STATE

    # The cause stands: it comes back after its rest, as another alert.
    (waits,) = await shown(desk, state=AlertState.PENDING)
    desk.later(minutes=10)
    desk.score({SYMBOLS[1]: 0.3})
    (back,) = await shown(desk)
    assert (back.id, back.opened_at) == (waits.id, desk.now)
    assert back.id != alert.id


async def test_moves_that_cannot_be_are_refused(desk: Desk) -> None:
    alert = await low(desk)
    for end in (
        timedelta(0),
        desk.now,
        desk.now - timedelta(seconds=1),
        MAX_SNOOZE + timedelta(seconds=1),
    ):
        with pytest.raises(RefusedError):
            await desk.alerts.snooze(alert.id, end, ME)
    with pytest.raises(NotFoundError):
        await desk.alerts.resolve("nobody", ME)
    with pytest.raises(NotFoundError):
        await desk.alerts.get("nobody")
    assert [one.id for one in await shown(desk)] == [alert.id]


async def test_what_happens_is_told_after_the_commit(
    database_url: str, make_database: MakeDatabase
) -> None:
    heard: list[object] = []
    database = make_database(database_url, publish=heard.append)
    await database.open()
    try:
        desk = Desk(database)
        alert = await low(desk)
        (raised,) = [one for one in heard if isinstance(one, AlertRaised)]
        assert (raised.alert_id, raised.symbol, raised.value) == (alert.id, SYMBOLS[1], 0.3)
        await desk.alerts.evaluate()
        await desk.alerts.resolve(alert.id, ME)
        (ended,) = [one for one in heard if isinstance(one, AlertResolved)]
        assert (ended.alert_id, ended.resolution, ended.resolved_by) == (
            alert.id,
            Resolution.OPERATOR,
            "me",
        )
        async with database.read() as unit:
            stored = await unit.get(EventRepository).after(0, 100)
        told = [one.type for one in stored if one.type.startswith("alert_")]
        assert told == ["alert_raised", "alert_resolved"]
    finally:
        await database.close()


async def test_a_database_that_takes_nothing_does_not_hide_an_alert(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(desk, 5)
    desk.score({SYMBOLS[1]: 0.3})

    async def full(*_: object) -> None:
        raise UnavailableError(Code.STORAGE_FULL, "the disk is full")

    with monkeypatch.context() as now:
        now.setattr("app.alerts.storage.alerts.AlertRepository.save", full)
        assert [one.rule for one in await shown(desk)] == [AlertRule.LOW_SCORE]
        async with desk.database.read() as unit:
            assert await unit.get(AlertRepository).active() == ()
    (kept,) = await shown(desk)
    async with desk.database.read() as unit:
        assert await unit.get(AlertRepository).active() == (kept,)


async def test_pages_of_the_past_go_back_without_a_gap(desk: Desk) -> None:
    await filled(desk, 5)
    for _ in range(5):
        desk.score({SYMBOLS[1]: 0.3, SYMBOLS[2]: 0.2})
        await desk.alerts.evaluate()
        desk.later(minutes=11)
        desk.score({})
        await desk.alerts.evaluate()
        desk.later(minutes=11)
    whole = await past(desk)
    assert len(whole) == 10
    paged: list[Alert] = []
    before = None
    while page := (await desk.alerts.load_resolved(AlertFilter(), 3, before))[0]:
        paged += page
        assert page[-1].resolved_at is not None
        before = page[-1].resolved_at, page[-1].id
    assert tuple(paged) == whole


async def test_the_watch_counts_what_is_open(desk: Desk) -> None:
    alert = await low(desk)
    desk.status(SYMBOLS[0], ContractStatus.PAUSED)
    metrics = Metrics()
    watch = AlertScheduler(desk.alerts, metrics)
    await watch.evaluate()
    gauge = 'mysymbols_alerts_open{severity="%s"} %s'
    text = metrics.render().decode()
    assert gauge % ("critical", "1.0") in text
    assert gauge % ("warning", "1.0") in text
    await desk.alerts.acknowledge(alert.id, ME)
    await watch.evaluate()
    assert gauge % ("warning", "0.0") in metrics.render().decode()


async def rule(desk: Desk, name: AlertRule) -> ActiveRule:
    rules, _ = await desk.alert_rules.all()
    return next(one for one in rules if one.rule is name)


async def test_a_rule_that_is_changed_is_in_force_at_once(desk: Desk) -> None:
    await low(desk)
    assert [one.rule for one in (await desk.alert_rules.all())[0]] == list(AlertRule)
    await desk.alert_rules.change(AlertRule.LOW_SCORE, {"limit": 0.2}, "why", WHO)
    assert await shown(desk) == ()
    calm = {"limit": 0.3, "clear_limit": 0.45, "duration_s": 60, "severity": "critical"}
    done = await desk.alert_rules.change(AlertRule.LOW_SCORE, calm, "why", WHO)
    assert done.result is not None
    assert (done.result.version, done.result.alerts.low_score) == (4, 0.3)
    now = await rule(desk, AlertRule.LOW_SCORE)
    assert (now.side, now.limit, now.clear_limit) == (ThresholdSide.BELOW, 0.3, 0.45)
    assert (now.settings.duration_s, now.settings.severity) == (60, Severity.CRITICAL)
    await desk.alert_rules.change(
        AlertRule.CLOCK_OFFSET, {"limit": 3.0, "clear_limit": 2.5, "enabled": False}, "why", WHO
    )
    far = await rule(desk, AlertRule.CLOCK_OFFSET)
    assert (far.limit, far.clear_limit, far.settings.enabled) == (3.0, 2.5, False)
    await desk.alert_rules.change(AlertRule.HIGH_CORRELATION, {"limit": 0.9}, "why", WHO)
    assert (await desk.configuration.current()).correlation.alert == 0.9


@pytest.mark.parametrize(
    ("name", "wanted", "loc"),
    [
        (AlertRule.NOT_TRADEABLE, {"limit": 1.0}, "limit"),
        (AlertRule.LOW_SCORE, {"clear_limit": 0.4}, "clear_limit"),
        (AlertRule.CLOCK_OFFSET, {"limit": 1.0, "clear_limit": 1.5}, "clear_limit"),
        (AlertRule.CLOCK_OFFSET, {"clear_limit": "low"}, "clear_limit"),
        (AlertRule.LOW_SCORE, {"limit": 1.5}, "alerts.low_score"),
        (AlertRule.LOW_SCORE, {"duration_s": -1}, "alerts.rules.low_score.duration_s"),
        (AlertRule.LOW_SCORE, {"mood": 1}, "alerts.rules.low_score.mood"),
    ],
)
async def test_a_rule_that_cannot_be_is_refused_and_named(
    desk: Desk, name: AlertRule, wanted: dict[str, object], loc: str
) -> None:
    await filled(desk, 3)
    with pytest.raises(ConfigurationRefusedError) as refused:
        await desk.alert_rules.change(name, wanted, "why", WHO)
    assert [one.loc for one in refused.value.complaints] == [loc]


async def test_D07_a_member_that_nobody_trades_or_believes_is_an_alert(desk: Desk) -> None:
    await filled(desk, 5)
    desk.quote(SYMBOLS[1], is_frozen=True)
    desk.quote(SYMBOLS[2], quarantine_reason=QuarantineReason.MARK_OFF_INDEX)
    found = await shown(desk, rule=AlertRule.QUARANTINED)
    assert [one.subject for one in found] == [SYMBOLS[1], SYMBOLS[2]]
    assert ["index" in one.message for one in found] == [True, True]
    del desk.market.quotes[SYMBOLS[1]]  # nothing is known of it any more
    desk.quote(SYMBOLS[2], quarantine_reason=None)
    assert [one.subject for one in await shown(desk, rule=AlertRule.QUARANTINED)] == [SYMBOLS[1]]
