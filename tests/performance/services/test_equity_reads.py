"""Performance reads what the answer needs, and comes to the very numbers of the whole history."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.decimal_math import total
from app.market.domain.models import Interval
from app.market.domain.panel import FIELDS
from app.performance.domain.attribution import attribution_from_curve
from app.performance.domain.equity_checks import equity_faults
from app.performance.domain.equity_curve import (
    Curve,
    Day,
    build_curve,
    compute_track_figures,
    daily_equity,
    equity_steps,
)
from app.performance.domain.replacement_outcomes import compute_outcomes
from app.performance.services.equity_reader import (
    EquityHistory,
    EquityQuery,
    load_equity,
    with_equity_index,
)
from app.portfolio.domain.event_log import Draft, EventType
from app.portfolio.storage import history, trades
from app.portfolio.storage.history import HistoryRepository
from tests.performance.services.test_performance import claim
from tests.support.trading_desk import SYMBOLS, WHO, Desk, panel

REBALANCES, RESULTS, SHOWN = 16, 9, 4  # SHOWN: days that the panel holds


def _prices(desk: Desk, turn: int) -> None:
    for place, symbol in enumerate(SYMBOLS[:8]):
        swing = 1.0 + 0.35 * np.sin(turn * (place + 1.7))
        desk.quote(symbol, mark=Decimal(f"{10 * swing:.4f}"))


async def lived(desk: Desk, rebalances: int = REBALANCES) -> Desk:
    """A portfolio of three with one rebalance a day, swaps and results on the way."""
    await desk.filled(3)
    numbers = count()
    for turn in range(rebalances):
        desk.later(days=1)
        desk.score({})
        _prices(desk, turn)
        if turn in (4, rebalances - 4):
            old, new = (SYMBOLS[1], SYMBOLS[5]) if turn == 4 else (SYMBOLS[2], SYMBOLS[6])
            await desk.portfolio.replace(old, new, "better", WHO)
            desk.later(minutes=1)
        if turn < RESULTS:
            booked = claim(f"t{next(numbers)}", f"{turn}.5", occurred_at=desk.now)
            await desk.performance.book(SYMBOLS[0], booked, "fill", WHO)
        await desk.rebalancing.rebalance(WHO)
    desk.later(hours=5)
    desk.score({})
    _prices(desk, rebalances)
    whole = panel(Interval.DAY, desk.now)
    cut = {name: getattr(whole, name)[-SHOWN:] for name in ("opened_ms", *FIELDS)}
    desk.market.panels[Interval.DAY] = replace(whole, **cut)
    return desk


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the events and the ids of the trades that were read."""
    seen: list[str] = []
    read_event, read_trade = history._event, trades._trade

    def event(row: Any) -> Any:
        seen.append(row.type)
        return read_event(row)

    def trade(row: Any) -> Any:
        seen.append(row.trade_id)
        return read_trade(row)

    monkeypatch.setattr(history, "_event", event)
    monkeypatch.setattr(trades, "_trade", trade)
    return seen


async def everything(desk: Desk) -> EquityHistory:
    """The walk over the whole history, whatever is asked."""
    async with desk.database.read() as unit:
        bounded = await load_equity(unit, desk.performance.contexts, EquityQuery(gains_since=START))
        changes = equity_steps(await unit.get(HistoryRepository).all())
    curve = build_curve(changes, bounded.valuations)
    return replace(bounded, changes=changes, curve=curve)


NET = sum((Decimal(turn) - 1 for turn in range(RESULTS)), Decimal(0))
START = datetime(2000, 1, 1).astimezone()


def _gains(curve: Curve, since: datetime, symbol: str) -> Decimal:
    points = (point for point in curve.points if point.at > since)
    return total(point.gains.get(symbol, Decimal(0)) for point in points)


async def test_long_histories_are_read_as_far_back_as_the_question_goes(
    desk: Desk, rows: list[str]
) -> None:
    await lived(desk)
    whole = await everything(desk)
    assert len(whole.changes) > REBALANCES - 3
    await _days_from_the_last_weighing_before_them(desk, whole, rows)
    await _an_attribution_of_its_window(desk, whole, rows)
    await _a_report_of_its_period_with_every_swap_of_it(desk, whole)
    await _positions_from_the_oldest_inclusion_on(desk, whole, rows)


async def _days_from_the_last_weighing_before_them(
    desk: Desk, whole: EquityHistory, rows: list[str]
) -> None:
    rows.clear()
    track = await desk.performance.load_history()
    assert track.days == daily_equity(whole.curve), (
        "the start, every close, and now: digit for digit"
    )
    assert len(track.days) == SHOWN + 2
    assert "PERFORMANCE" not in rows
    assert len(rows) <= SHOWN + 8, "a rebalance a day, the opening, and the swap of these days"

    rows.clear()
    since = whole.days[-3].at
    late = await desk.performance.load_history(since)
    assert late.within(since, None) == tuple(one for one in whole.days if one.at >= since)
    assert len(rows) < 8

    rows.clear()
    told = await desk.analytics.summary()
    assert told.figures == compute_track_figures(whole.curve), "of every weighing, too"
    assert len(rows) <= SHOWN + 8


async def _an_attribution_of_its_window(desk: Desk, whole: EquityHistory, rows: list[str]) -> None:
    end = desk.now
    for window in (3, 2000):
        rows.clear()
        (index, *booked), _, _ = await desk.performance.attribution(window)
        weights = {one.symbol: one.weight_u for one in whole.portfolio.members}
        begin = end - timedelta(days=window)
        assert index == attribution_from_curve(
            whole.curve.points, begin, end, weights, whole.sector
        )
        assert [(one.unit, one.end) for one in booked] == [("USDT", NET)]
        is_long = window == 2000
        assert ("t0" in rows) is is_long
        assert (len(rows) > REBALANCES) is is_long
        assert (booked[0].start == 0) is is_long


async def _positions_from_the_oldest_inclusion_on(
    desk: Desk, whole: EquityHistory, rows: list[str]
) -> None:
    rows.clear()
    held, _ = await desk.performance.positions()
    assert not [one for one in rows if one.startswith("t")], "sums are kept, no result is read"
    for one in held:
        gains = _gains(whole.curve, one.member.included_at, one.member.symbol)
        assert one.since_inclusion == gains
    realized = {one.member.symbol: one.realized for one in held}
    assert realized[SYMBOLS[0]] == NET
    assert realized[SYMBOLS[6]] is None
    # Without the founder, the members are younger, and so is what is read.
    await desk.portfolio.remove(SYMBOLS[0], "out", WHO)
    await desk.portfolio.remove(SYMBOLS[5], "out", WHO)
    rows.clear()
    young, _ = await desk.performance.positions()
    assert [one.member.symbol for one in young] == [SYMBOLS[6]]
    assert len(rows) < 14
    after = await everything(desk)
    assert young[0].since_inclusion == _gains(after.curve, young[0].member.included_at, SYMBOLS[6])


async def _a_report_of_its_period_with_every_swap_of_it(desk: Desk, whole: EquityHistory) -> None:
    report = await desk.reporting.report(None, None)
    assert report.days == daily_equity(whole.curve)
    assert report.replacements == compute_outcomes(whole.changes, whole.valuations)
    assert [(one.old, one.new) for one in report.replacements] == [
        (SYMBOLS[1], SYMBOLS[5]),
        (SYMBOLS[2], SYMBOLS[6]),
    ]
    since = desk.now - timedelta(days=6)
    late = await desk.reporting.report(since, None)
    assert report.figures == compute_track_figures(whole.curve)
    assert late.figures == compute_track_figures(whole.curve, since=since)
    assert late.figures != report.figures
    assert late.replacements == report.replacements[1:]
    assert late.days == tuple(one for one in report.days if one.at >= since)
    assert (await desk.reporting.report(None, since)).replacements == report.replacements[:1]


async def test_what_is_kept_to_read_less_is_proven_by_the_history(desk: Desk) -> None:
    await lived(desk, 5)
    assert (await desk.integrity.check()).ok
    statements = (
        ("UPDATE booked_totals SET pnl = '999' WHERE currency = 'USDT'", "booked_totals"),
        ("DELETE FROM booked_totals", "booked_totals"),
    )
    for statement, name in statements:
        async with desk.database.write() as unit:
            await unit.connection.exec_driver_sql(statement.replace("'999'", "999"))
        wrong = [one for one in (await desk.integrity.check()).invariants if not one.ok]
        assert [one.name for one in wrong] == [name]
        assert wrong[0].detail is not None
        assert "USDT is not that of its events" in wrong[0].detail
    async with desk.database.read() as unit:
        events = list(await unit.get(HistoryRepository).all())
    at = next(at for at, one in enumerate(events) if one.type is EventType.REBALANCE)
    for index in (
        {"equity": "1.000001", "broken": None},
        {"equity": None, "broken": None},
        {"equity": None, "broken": "so"},
    ):
        altered = [*events]
        altered[at] = replace(events[at], payload={**events[at].payload, "index": index})
        (fault,) = equity_faults(altered)
        assert fault.startswith(f"event {events[at].seq} stores another equity")
    assert equity_faults(events) == []


async def test_the_index_leads_to_the_events_that_are_read(desk: Desk) -> None:
    await desk.filled(2)
    async with desk.database.read() as unit:
        weighing = await unit.get(HistoryRepository).last_weighting(desk.now)
        wanted = (
            lambda: unit.get(HistoryRepository).moves(weighing=weighing),
            lambda: unit.get(HistoryRepository).moves(since=desk.now),
            lambda: unit.get(HistoryRepository).last_weighting(desk.now),
            unit.get(HistoryRepository).first_move_at,
        )
        is_sqlite = unit.connection.dialect.name == "sqlite"
        if not is_sqlite:  # of a handful of rows it would read all
            await unit.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for number, read in enumerate(wanted):
            told = await _plan(unit.connection, read)
            assert "ix_portfolio_history_moved" in told
            if is_sqlite and number < 2:
                assert "(aggregate=? AND seq>?)" in told, "not the whole index"


async def _plan(connection: AsyncConnection, read: Callable[[], Awaitable[object]]) -> str:
    """How the database carries out what `read` asks."""
    asked: list[tuple[str, Any]] = []

    def hear(_c: object, _cursor: object, statement: str, given: Any, *_: object) -> None:
        asked.append((statement, given))

    event.listen(connection.sync_connection, "before_cursor_execute", hear)
    await read()
    event.remove(connection.sync_connection, "before_cursor_execute", hear)
    ((statement, given),) = asked
    word = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    rows = await connection.exec_driver_sql(f"{word} {statement}", given)
    return "\n".join(str(tuple(row)) for row in rows)


async def test_a_mark_that_was_not_known_breaks_later_stretches_too(desk: Desk) -> None:
    await desk.filled(2)
    desk.later(hours=1)
    desk.quote(SYMBOLS[0], mark=None)
    await desk.portfolio.remove(SYMBOLS[0], "out", WHO)
    desk.quote(SYMBOLS[0], mark=Decimal(10))
    for _ in range(2):
        desk.later(days=1)
        desk.score({})
        await desk.portfolio.add(SYMBOLS[desk.now.day], "in", WHO)
    whole = await everything(desk)
    day: Day = (await desk.performance.load_history(desk.now - timedelta(hours=1))).days[-1]
    assert day == whole.days[-1]
    assert (day.equity, day.reason) == (None, whole.curve.broken)
    assert day.reason is not None
    assert (await desk.integrity.check()).ok


async def test_weighings_without_their_equity_are_read_from_the_beginning(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bare(_unit: object, drafts: Sequence[Draft], _stamp: object) -> tuple[Draft, ...]:
        return tuple(drafts)

    desk.index_equity = bare
    await lived(desk, 3)
    whole = await everything(desk)
    assert (await desk.performance.load_history()).days == daily_equity(whole.curve)
    desk.index_equity = with_equity_index
    desk.quote(whole.portfolio.members[0].symbol, mark=Decimal(22))
    desk.later(hours=1)
    desk.score({})
    await desk.rebalancing.rebalance(WHO)
    async with desk.database.read() as unit:
        newest = await unit.get(HistoryRepository).last_weighting()
    assert newest is not None
    expected = (await everything(desk)).curve.points[-2]
    assert expected.is_step
    assert Decimal(newest.payload["index"]["equity"]) == expected.equity
