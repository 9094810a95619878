"""State cache: a commit is loaded once, and views that it does not touch stay."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from app.foundation.hash_chain import ChainHead
from app.foundation.sql.database import Database
from app.foundation.sql.key_value import KeyValueRepository
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.weighting import Covariance
from app.portfolio.services import views as weighing
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.storage.history import HEAD, HistoryRepository
from app.portfolio.storage.portfolio import ControlRepository
from tests.portfolio.services.test_reads_from_memory import (
    ON_POSTGRES,
    ON_SQLITE,
    _banned,
    _booked,
    _configured,
    _leaving,
    _mark,
    _removed,
    _switched,
    anew,
    read,
)
from tests.support.trading_desk import SYMBOLS, WHO, Desk


async def _watched(desk: Desk) -> None:
    await desk.controls.lock(SYMBOLS[2], LockKind.WATCH, "interesting", None, WHO)


async def _freed(desk: Desk) -> None:
    await desk.controls.unlock(SYMBOLS[3], "no more rumours", WHO)


@ON_SQLITE
@pytest.mark.parametrize("move", [_booked, _switched, _banned, _watched, _freed])
async def test_the_first_read_after_a_commit_loads_the_state_once(
    counted: tuple[Database, list[str]], move: Callable[[Desk], Awaitable[None]]
) -> None:
    database, statements = counted
    desk = await Desk(database).filled()
    await _banned(desk)
    before = await read(desk)
    await move(desk)
    statements.clear()
    after = await read(desk)
    assert len([one for one in statements if "max(portfolio_history" in one]) == 1
    assert after == await anew(desk)
    assert after != before or move is _banned
    statements.clear()
    await read(desk)
    assert statements == []


async def _lost(database: Database) -> None:
    """The last commit, which was a ban, as after a failover to a server that had not got it."""
    async with database.write() as unit:
        for statement in (
            "ALTER TABLE portfolio_history DISABLE TRIGGER USER",
            "DELETE FROM portfolio_history WHERE seq = (SELECT max(seq) FROM portfolio_history)",
            "ALTER TABLE portfolio_history ENABLE TRIGGER USER",
            "UPDATE portfolio SET version = version - 1",
        ):
            await unit.connection.execute(text(statement))
        await unit.get(ControlRepository).store_locks({})
        *_, last = await unit.get(HistoryRepository).all()
        await unit.get(KeyValueRepository).put(HEAD, ChainHead.of(last).fact())


@ON_POSTGRES
@pytest.mark.parametrize("later", [(), (_booked,)], ids=["at once", "after another"])
async def test_B12_commits_that_a_failover_lost_are_forgotten_though_numbers_come_again(
    desk: Desk, later: tuple[Callable[[Desk], Awaitable[None]], ...]
) -> None:
    await desk.filled()
    await _banned(desk)
    await read(desk)
    await _lost(desk.database)
    other = Desk(desk.database, desk.market, desk.boards, desk.now)
    for move in (_watched, *later):
        await move(other)
    seen = await read(desk)
    assert seen == await anew(desk)
    assert {lock.kind for lock in (await desk.controls.controls()).locks.values()} == {
        LockKind.WATCH
    }


@ON_SQLITE
async def test_target_weights_are_worked_out_once_for_all_who_show_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.filled()
    made: list[object] = []
    compute = weighing.compute_target_weights

    def counting(
        portfolio: Portfolio, context: DecisionContext, known: Callable[[], Covariance | None]
    ) -> weighing.TargetWeights:
        made.append(context)
        return compute(portfolio, context, known)

    monkeypatch.setattr("app.portfolio.services.views.compute_target_weights", counting)
    await read(desk)
    assert len(made) == 1
    for move in (_booked, _switched):
        await move(desk)
        await read(desk)
    assert len(made) == 1  # no result and no switch has a part in them
    for number, change in enumerate((_banned, _leaving, _configured, _removed), start=2):
        await change(desk)
        await read(desk)
        assert len(made) == number
    _mark(desk)
    await read(desk)
    assert len(made) == 6


@ON_SQLITE
async def test_a_booked_result_has_nothing_of_the_members_worked_out_again(desk: Desk) -> None:
    await desk.filled()

    async def made() -> tuple[object, ...]:
        weights, safety = await desk.rebalancing.weights(), await desk.safety.validate()
        return weights.lines, safety.warnings, (await desk.trading.tradeable())[0]

    before = await made()
    await _booked(desk)
    assert all(one is two for one, two in zip(before, await made(), strict=True))
    await _switched(desk)
    assert (await made())[1] != before[1]
