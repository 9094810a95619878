"""What the portfolio is worth is noted once for each slot, and read as it was noted."""

from datetime import timedelta
from decimal import Decimal

import pytest

from app.foundation.sql.database import Database
from app.performance.api import routes as portfolio_marks
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import NOW, WHO, Desk

HOUR = timedelta(hours=1)
# Where the database is no matter.
SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


async def test_each_slot_is_noted_once_and_with_the_prices_of_then(database: Database) -> None:
    desk = await Desk(database).filled(3)
    first = await desk.performance_marks.record(NOW)
    assert first is not None
    assert (first.equity, first.version, first.reason) == (Decimal(1), 1, None)
    assert first.prices == dict.fromkeys(await desk.members(), Decimal("10.0"))
    desk.quote("C00USDT", mark=Decimal("11.0"))
    desk.later(minutes=5)
    await desk.performance_marks.record(NOW)  # as after a crash: the slot has its mark
    desk.later(minutes=55)
    second = await desk.performance_marks.record(NOW + HOUR)
    assert second is not None
    track = await desk.performance.load_history(None)
    assert second.equity == track.days[-1].equity
    assert second.equity is not None
    assert second.equity > 1
    desk.quote("C01USDT", mark=None)
    third = await desk.performance_marks.record(NOW + 2 * HOUR)
    assert third is not None
    assert (third.equity, "C01USDT" in third.prices) == (None, False)
    assert third.reason is not None
    assert await desk.performance_marks.page(9, None, None, None) == (first, second, third)


@SQLITE
async def test_without_a_portfolio_there_is_nothing_to_note(database: Database) -> None:
    desk = await Desk(database).open()
    assert await desk.performance_marks.record(NOW) is None
    assert await desk.performance_marks.page(9, None, None, None) == ()


@SQLITE
async def test_a_slot_that_began_before_there_was_a_portfolio_stays_without_a_mark(
    database: Database,
) -> None:
    desk = await Desk(database).open()
    desk.later(minutes=3)
    await desk.portfolio.initialize(3, "start", WHO)
    desk.later(minutes=2)  # the run of the slot is late, or is tried again
    assert await desk.performance_marks.record(NOW) is None
    desk.later(minutes=55)
    first = await desk.performance_marks.record(NOW + HOUR)
    assert first is not None
    assert await desk.performance_marks.page(9, None, None, None) == (first,)


@SQLITE
async def test_marks_are_read_page_by_page_and_by_period(database: Database) -> None:
    desk = await Desk(database).filled(2)
    for hour in range(5):
        await desk.performance_marks.record(NOW + hour * HOUR)
    path = f"{PREFIX}/portfolio/marks"
    async with serve([portfolio_marks.router], {"my_symbols": desk}) as client:
        first = (await client.get(path, params={"limit": 3})).json()
        rest = (await client.get(path, params={"limit": 3, "cursor": first["next_cursor"]})).json()
        slots = [one["slot"] for one in (*first["items"], *rest["items"])]
        assert slots == sorted(set(slots))
        assert (len(slots), rest["next_cursor"]) == (5, None)
        assert first["items"][0]["equity"] == "1"
        assert first["items"][0]["prices"]["C00USDT"] == "10"
        period = {"from": slots[1], "to": slots[3]}
        inside = (await client.get(path, params=period)).json()["items"]
        assert [one["slot"] for one in inside] == slots[1:3]
        backwards = {"from": slots[3], "to": slots[1]}
        problem(await client.get(path, params=backwards), 422, "validation_failed")
