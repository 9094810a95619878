"""Cache of the alert book: nothing is read again without a change, and no change is missed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import event

from app.alerts.domain.lifecycle import REFRESH_S, ResolvedAlert
from app.alerts.domain.models import AlertRule, AlertState, Resolution
from app.alerts.services import service
from app.alerts.services.facts import PairCorrelations, load_pair_correlations
from app.alerts.services.service import AlertBookCache
from app.alerts.storage.alerts import AlertRepository
from app.foundation.sql.database import Database
from app.foundation.sql.key_value import KeyValueRepository
from app.market.domain.models import Interval
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.replacement import ConfirmationCount
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.storage.replacements import ReplacementRepository
from app.scoring.storage.runs import ScoringRepository
from app.security.domain.bursts import EVERY_ADDRESS, HOLD, Burst
from app.security.storage.audit import SecurityEventRepository
from tests.alerts.services.test_alerts import filled, shown
from tests.support.trading_desk import SYMBOLS, WHO, Desk


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What is asked of the database meanwhile."""
    asked: list[str] = []

    def note(_c: object, _cursor: object, sql: str, *_: object) -> None:
        asked.append(sql)

    engines = [one.sync_engine for one in database._require_open().all()]
    for one in engines:
        event.listen(one, "before_cursor_execute", note)
    yield asked
    for one in engines:
        event.remove(one, "before_cursor_execute", note)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_an_evaluation_without_a_commit_asks_nothing_and_sees_the_market(desk: Desk) -> None:
    await filled(desk, 5)
    await shown(desk)
    with statements(desk.database) as asked:
        assert not await shown(desk)
        assert asked == []
        desk.score({SYMBOLS[1]: 0.3})  # a change in memory alone
        (alert,) = await shown(desk)
    assert alert.rule is AlertRule.LOW_SCORE


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_commit_elsewhere_costs_one_statement_for_state_and_book_each(desk: Desk) -> None:
    await filled(desk, 5)
    desk.score({SYMBOLS[1]: 0.3})
    await shown(desk)
    await shown(desk)  # reads the row that the one before has written
    async with desk.database.write() as unit:
        await unit.get(KeyValueRepository).put("something", "else")
    with statements(desk.database) as asked:
        assert await shown(desk)
    assert len([sql for sql in asked if "SELECT" in sql]) == 2


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_where_others_may_write_two_statements_say_that_nothing_was_committed(
    desk: Desk,
) -> None:
    await filled(desk, 5)
    desk.score({SYMBOLS[1]: 0.3})
    (alert,) = await shown(desk)
    await shown(desk)  # it has read what the one before has written
    with statements(desk.database) as asked:
        assert await shown(desk) == (alert,)
    # Whether portfolio and settings, and whether alerts, boards and rivals are still the same.
    assert len({sql for sql in asked if sql.startswith("SELECT")}) == 2, asked
    # A pending one that never opened leaves no row, and is gone from memory all the same.
    async with desk.database.write() as unit:
        pending = replace(alert, id="p", subject="X", state=AlertState.PENDING, opened_at=None)
        await unit.get(AlertRepository).save([pending])
    with statements(desk.database) as asked:
        assert await shown(desk) == (alert,)
    assert any("FROM alerts" in sql for sql in asked)
    # Boards and rivals that another has stored are read, too.
    async with desk.database.write() as unit:
        await unit.get(ReplacementRepository).keep(
            [ConfirmationCount(SYMBOLS[0], SYMBOLS[9], 3, "h", desk.now, True)]
        )
    assert [one.subject for one in await shown(desk, rule=AlertRule.REPLACEMENT_RECOMMENDED)] == [
        SYMBOLS[0]
    ]
    await shown(desk)  # it has read what the one before has written
    async with desk.database.write() as unit:
        await unit.get(ReplacementRepository).keep(
            [ConfirmationCount(SYMBOLS[0], SYMBOLS[8], 3, "h", desk.now, True)]
        )
    (told,) = await shown(desk, rule=AlertRule.REPLACEMENT_RECOMMENDED)
    assert told.symbols == (SYMBOLS[0], SYMBOLS[8])


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_a_board_that_another_process_stored_is_seen_by_the_next_look(desk: Desk) -> None:
    await filled(desk, 5)
    await desk.configuration.put({"alerts": {"score_drop_runs": 1}}, "sooner", WHO)
    former = desk.boards.board
    assert former is not None
    async with desk.database.write() as unit:
        await unit.get(ScoringRepository).save(former, None)
    desk.score({SYMBOLS[1]: 0.7})
    for _ in range(2):
        assert not await shown(desk), "there is no board before the newest one"
    newer = replace(former, run_id="board-2", calculated_at=desk.now + timedelta(seconds=1))
    async with desk.database.write() as unit:
        await unit.get(ScoringRepository).save(newer, None)
    (fallen,) = await shown(desk)
    assert (fallen.rule, fallen.subject) == (AlertRule.SCORE_DROPPED, SYMBOLS[1])


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_board_that_is_stored_is_seen_by_the_next_look(desk: Desk) -> None:
    await filled(desk, 5)
    await shown(desk)
    with statements(desk.database) as asked:
        async with desk.database.write() as unit:
            await unit.get(ScoringRepository).drop_inputs(())
        asked.clear()
        await shown(desk)
    assert any("scoring_runs" in sql for sql in asked)


async def test_a_burst_that_another_process_stored_is_seen_by_the_next_look_and_ends(
    desk: Desk,
) -> None:
    await filled(desk, 5)
    for _ in range(2):
        assert not await shown(desk)
    async with desk.database.write() as unit:
        bursts = [Burst("10.0.0.1", 11, desk.now), Burst(EVERY_ADDRESS, 11, desk.now)]
        await unit.get(SecurityEventRepository).append_bursts(*bursts)
    one, all_of_them = await shown(desk)
    assert (one.rule, one.subject, one.value) == (AlertRule.AUTHENTICATION_BURST, "10.0.0.1", 11.0)
    assert (all_of_them.subject, "several addresses" in all_of_them.message) == ("all", True)
    desk.later(seconds=HOLD.total_seconds() - 1)
    assert len(await shown(desk)) == 2
    desk.later(seconds=1)
    assert not await shown(desk)


async def test_what_another_part_of_the_service_commits_is_seen_by_the_next_look(
    desk: Desk,
) -> None:
    await filled(desk, 5)
    desk.score({SYMBOLS[1]: 0.3})
    (alert,) = await shown(desk)
    desk.alerts = replace(desk.alerts, _books=AlertBookCache())  # it has read the open one
    assert await shown(desk)
    async with desk.database.write() as unit:
        await unit.get(AlertRepository).save([alert.acknowledge(desk.now, "somebody")])
    (seen,) = await shown(desk, state=AlertState.ACKNOWLEDGED)
    assert seen.acknowledged_by == "somebody"
    await desk.portfolio.remove(SYMBOLS[1], "out with it", WHO)
    assert not await shown(desk, state=AlertState.ACKNOWLEDGED)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_number_that_moves_is_shown_at_once_and_noted_after_a_while(desk: Desk) -> None:
    await filled(desk, 5)
    desk.score({SYMBOLS[1]: 0.3})
    (alert,) = await shown(desk)
    desk.score({SYMBOLS[1]: 0.25})
    with statements(desk.database) as asked:
        (moved,) = await shown(desk)
        assert (moved.id, moved.value) == (alert.id, 0.25)
        assert (await desk.alerts.get(alert.id)).value == 0.25
    assert not any("INSERT" in sql for sql in asked)
    desk.now += timedelta(seconds=REFRESH_S)
    desk.score({SYMBOLS[1]: 0.2})
    await shown(desk)
    async with desk.database.read() as unit:
        noted = await unit.get(AlertRepository).get(alert.id)
    assert (noted.value, noted.last_seen_at) == (0.2, desk.now)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_correlations_are_worked_out_for_each_day_and_each_set_of_members(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(desk, 5)
    worked = list[int]()

    def counted(portfolio: Portfolio, context: DecisionContext) -> PairCorrelations:
        worked.append(len(portfolio.members))
        return load_pair_correlations(portfolio, context)

    monkeypatch.setattr(service, "load_pair_correlations", counted)
    await shown(desk)
    desk.quote(SYMBOLS[0], mark=Decimal("9.9"))
    await shown(desk)
    assert worked == [5], "prices of the day have no part in them"
    await desk.portfolio.remove(SYMBOLS[1], "out with it", WHO)
    await shown(desk)
    assert worked == [5, 4]
    desk.market.panels[Interval.DAY] = replace(desk.market.panels[Interval.DAY])  # another day
    await shown(desk)
    assert worked == [5, 4, 4]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_prices_alone_change_the_facts_of_the_members(desk: Desk) -> None:
    await filled(desk, 5)
    assert not await shown(desk)
    desk.quote(SYMBOLS[0], mark=Decimal("5.0"))
    fallen = await shown(desk, rule=AlertRule.POOR_PERFORMANCE)
    assert [one.subject for one in fallen] == [SYMBOLS[0]]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_ends_that_lie_too_far_back_no_longer_count(desk: Desk) -> None:
    await filled(desk, 5)
    await shown(desk)
    cached = desk.alerts._books._cached
    assert cached is not None
    end = ResolvedAlert(desk.now, Resolution.CLEARED)
    book = replace(cached[3], ended={(AlertRule.LOW_SCORE, SYMBOLS[0]): end})
    assert book.ended_since(desk.now - timedelta(days=1)) == book.ended
    assert book.ended_since(desk.now) == {}
