"""Reads are served from memory, and nothing that has changed is ever missing in them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from app.foundation.data_status import DataStatus
from app.foundation.idempotency import Command
from app.foundation.sql.database import Database
from app.foundation.sql.key_value import KeyValueRepository
from app.market.domain.models import Interval
from app.performance.services.service import ResultSubmission
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.replacement import ConfirmationCount
from app.portfolio.domain.weighting import Covariance
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.views import PortfolioView, WeightsReport
from app.portfolio.storage.replacements import ReplacementRepository
from app.trading.services.position_sizing import Tradeable
from app.trading.services.safety import SafetyReport
from tests.conftest import PATIENT, MakeDatabase
from tests.support.trading_desk import SYMBOLS, WHO, Desk, panel

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
Seen = tuple[PortfolioView, WeightsReport, SafetyReport, tuple[Tradeable, ...], object]
Move = Callable[[Desk], Awaitable[object] | None]


async def read(desk: Desk) -> Seen:
    return (
        await desk.portfolio.view(),
        await desk.rebalancing.weights(),
        await desk.safety.validate(),
        (await desk.trading.tradeable())[0],
        await desk.controls.controls(),
    )


async def anew(desk: Desk) -> Seen:
    """The same by services that remember nothing."""
    other = Desk(desk.database, desk.market, desk.boards, desk.now)
    return await read(other)


def _mark(desk: Desk) -> None:
    desk.quote(SYMBOLS[0], mark=Decimal("12.5"))


def _stale(desk: Desk) -> None:
    desk.stale(SYMBOLS[0])


def _board(desk: Desk) -> None:
    desk.score({SYMBOLS[1]: 0.62})


def _part_of_a_fill(desk: Desk) -> None:
    desk.boards.whole = False


def _hour(desk: Desk) -> None:
    desk.market.panels[Interval.HOUR] = panel(Interval.HOUR, desk.now + timedelta(days=3))


def _days(desk: Desk) -> None:
    held = panel(Interval.DAY, desk.now)
    close = held.close.copy()
    close[:, 2] = close[:, 1]  # two members that move as one
    desk.market.panels[Interval.DAY] = replace(held, close=close)


def _market_stale(desk: Desk) -> None:
    desk.market.state = DataStatus.STALE


def _seen_later(desk: Desk) -> None:
    desk.market.seen_at = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)


def _halted(desk: Desk) -> None:
    desk.market.halted = True


async def _configured(desk: Desk) -> None:
    await desk.configuration.put({"max_weight_percentage": "14"}, "lower", WHO)


async def _switched(desk: Desk) -> None:
    await desk.controls.switch(False, "incident", WHO)


async def _banned(desk: Desk) -> None:
    until = desk.now + timedelta(minutes=2)
    await desk.controls.lock(SYMBOLS[3], LockKind.BAN, "rumours", until, WHO)


async def _booked(desk: Desk) -> None:
    claim = ResultSubmission("t1", Decimal("12.5"), "USDT", Decimal("0.5"), Decimal(-1), desk.now)
    await desk.performance.book(SYMBOLS[0], claim, "fill", WHO)


async def _removed(desk: Desk) -> None:
    await desk.portfolio.remove(SYMBOLS[9], "enough", WHO)


async def _leaving(desk: Desk) -> None:
    tally = ConfirmationCount(SYMBOLS[5], SYMBOLS[20], 3, "inputs", desk.now, is_confirmed=True)
    async with desk.database.write() as unit:
        await unit.get(ReplacementRepository).keep((tally,))


MOVES: dict[str, Move] = {
    "a price moves": _mark,
    "a member turns stale": _stale,
    "a new board": _board,
    "a board of a part": _part_of_a_fill,
    "an hourly bar": _hour,
    "daily bars": _days,
    "the market turns stale": _market_stale,
    "the market is known up to later": _seen_later,
    "trading is halted": _halted,
    "other settings": _configured,
    "the switch": _switched,
    "a ban": _banned,
    "a booked result": _booked,
    "a member less": _removed,
    "a confirmed replacement": _leaving,
    "the board passes its age limit": lambda desk: desk.later(hours=1),
}


@ON_SQLITE
@pytest.mark.parametrize("name", MOVES)
async def test_what_has_changed_shows_in_the_very_next_read(desk: Desk, name: str) -> None:
    await desk.filled()
    before = await read(desk)
    moved = MOVES[name](desk)
    if moved is not None:
        await moved
    after = await read(desk)
    assert after == await anew(desk)
    assert without_time(after) != without_time(before)


def without_time(seen: Seen) -> Seen:
    return (seen[0], seen[1], replace(seen[2], checked_at=seen[2].facts.as_of or NEVER), *seen[3:])


NEVER = datetime.min.replace(tzinfo=UTC)


@ON_SQLITE
async def test_a_ban_ends_by_itself_in_the_very_next_read(desk: Desk) -> None:
    await desk.filled()
    await _banned(desk)
    assert (await desk.portfolio.view()).members[3].not_tradeable_reason == "banned: rumours"
    desk.later(minutes=2)
    assert (await desk.portfolio.view()).members[3].is_tradeable
    assert await read(desk) == await anew(desk)


@ON_SQLITE
async def test_while_nothing_changes_a_view_is_worked_out_once(desk: Desk) -> None:
    await desk.filled()
    first = await desk.portfolio.view()
    desk.later(seconds=1)
    assert await desk.portfolio.view() is first
    assert (await desk.safety.validate()).checked_at == desk.now
    desk.later(seconds=1)
    assert (await desk.safety.validate()).checked_at == desk.now


@ON_SQLITE
async def test_the_only_process_reads_without_a_statement_until_it_has_committed(
    counted: tuple[Database, list[str]],
) -> None:
    database, statements = counted
    desk = await Desk(database).filled()
    await read(desk)
    statements.clear()
    await read(desk)
    assert statements == []
    async with database.read():
        pass  # reading moves nothing
    statements.clear()
    await read(desk)
    assert statements == []
    async with database.write() as unit:
        await unit.get(KeyValueRepository).put("apart", 1)
    statements.clear()
    await read(desk)
    # A commit may have changed the state: its revision is read once, and nothing is loaded.
    assert len([one for one in statements if "SELECT" in one]) == 1


@ON_POSTGRES
async def test_where_others_may_write_each_read_asks_once_and_sees_what_they_committed(
    counted: tuple[Database, list[str]], database_url: str, make_database: MakeDatabase
) -> None:
    database, statements = counted
    other = make_database(database_url, **PATIENT)
    await other.open()
    desk = await Desk(database).filled()
    await read(desk)
    statements.clear()
    await desk.portfolio.view()
    assert len([one for one in statements if "SELECT" in one]) == 1
    statements.clear()
    await asyncio.gather(*(desk.portfolio.view() for _ in range(50)))
    assert len([one for one in statements if "portfolio_history" in one]) <= 2
    elsewhere = Desk(other, desk.market, desk.boards, desk.now)
    for move in (_removed, _switched, _configured, _booked, _leaving):
        before = await read(desk)
        await move(elsewhere)
        after = await read(desk)
        assert after == await anew(desk)
        assert after != before
    await other.close()


@ON_SQLITE
async def test_who_reads_again_and_again_holds_up_nobody(desk: Desk) -> None:
    await desk.filled()
    others: list[int] = []

    async def other() -> None:
        for turn in range(3):
            others.append(turn)
            await asyncio.sleep(0)

    going = asyncio.ensure_future(other())
    for _ in range(10):
        await desk.portfolio.view()
    assert others == [0, 1, 2]
    await going


@ON_SQLITE
async def test_who_hears_of_a_change_reads_it(database: Database) -> None:
    desk = await Desk(database).filled()
    await desk.controls.controls()
    read_at: list[object] = []
    told: list[asyncio.Task[None]] = []

    async def look() -> None:
        read_at.append((await desk.controls.controls()).switch.enabled)

    # The event leaves right after the commit: who reads because of it must find the change.
    database.publish = lambda _: told.append(asyncio.get_running_loop().create_task(look()))
    await desk.controls.switch(False, "incident", Command("tester", "request-2"))
    await asyncio.gather(*told)
    assert read_at
    assert set(read_at) == {False}


@ON_SQLITE
async def test_how_members_move_together_is_worked_out_for_bars_and_members_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.filled(4)
    asked: list[tuple[str, ...]] = []
    shared: list[Portfolio] = []
    whole, jointly = DecisionContext.correlations, DecisionContext.covariance

    def counted(
        context: DecisionContext, symbols: tuple[str, ...], days: int
    ) -> dict[tuple[str, str], float]:
        asked.append(symbols)
        return whole(context, symbols, days)

    def noted(context: DecisionContext, portfolio: Portfolio) -> Covariance | None:
        shared.append(portfolio)
        return jointly(context, portfolio)

    monkeypatch.setattr(DecisionContext, "correlations", counted)
    monkeypatch.setattr(DecisionContext, "covariance", noted)
    await desk.safety.validate()
    before = await desk.rebalancing.weights()
    _mark(desk)
    assert (await desk.rebalancing.weights()).lines != before.lines
    assert len(shared) == 1
    await desk.controls.switch(False, "x", WHO)
    assert "trading_disabled" in {one.code for one in (await desk.safety.validate()).issues}
    assert len(asked) == 1
    _days(desk)
    assert "correlation_high" in {one.code for one in (await desk.safety.validate()).warnings}
    assert len(asked) == 2
    await desk.rebalancing.weights()
    assert len(shared) == 2
