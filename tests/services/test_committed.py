"""What is loaded and worked out anew after an event, and what is not."""

from collections.abc import Awaitable, Callable

import pytest

from app.domain.portfolio import Portfolio
from app.services import weighing
from app.services.grounds import Grounds
from app.storage.database import Database
from tests.services.desk import Desk
from tests.services.test_reads_from_memory import (
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


@ON_SQLITE
@pytest.mark.parametrize("move", [_booked, _switched, _banned])
async def test_after_an_event_that_moves_no_member_only_its_own_part_is_loaded(
    counted: tuple[Database, list[str]], move: Callable[[Desk], Awaitable[None]]
) -> None:
    database, statements = counted
    desk = await Desk(database).filled()
    await read(desk)
    await move(desk)
    statements.clear()
    after = await read(desk)
    # What is committed now, what has happened since, and that.
    assert len([one for one in statements if "SELECT" in one]) == 3
    assert after == await anew(desk)


@ON_SQLITE
async def test_the_weights_aimed_at_are_worked_out_once_for_all_who_show_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.filled()
    made: list[object] = []

    def counting(portfolio: Portfolio, grounds: Grounds) -> weighing.Aim:
        made.append(grounds)
        return weighing.aim(portfolio, grounds)

    monkeypatch.setattr("app.services.aimed.aim", counting)
    await read(desk)
    assert len(made) == 1
    for move in (_booked, _switched):
        await move(desk)
        await read(desk)
    assert len(made) == 1  # no result and no switch has a part in them
    for number, shift in enumerate((_banned, _leaving, _configured, _removed), start=2):
        await shift(desk)
        await read(desk)
        assert len(made) == number
    _mark(desk)
    await read(desk)
    assert len(made) == 6
