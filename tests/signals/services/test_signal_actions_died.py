"""A process that ends while it changes the portfolio for a signal."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from app.foundation.sql.database import Database, UnitOfWork
from app.signals.domain.models import SignalState
from tests.support.action_fixtures import by_skill, eight_members, judged, put, told, version
from tests.support.trading_desk import SYMBOLS, Desk

T = TypeVar("T")


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def desk(database: Database) -> Desk:
    return await eight_members(database)


class DiedError(Exception):
    """The process ended here."""


class Dying(Database):
    """Ends with its process, before or after it has committed."""

    def __init__(self, living: Database, *, commits: bool) -> None:
        self._living, self._commits = living, commits

    async def run(self, closure: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        async def change(unit: UnitOfWork) -> T:
            done = await closure(unit)
            if not self._commits:
                raise DiedError
            return done

        await self._living.run(change)
        raise DiedError


async def test_a_process_that_dies_in_a_change_loses_none_and_makes_none_twice(
    desk: Desk,
) -> None:
    await put(desk, automation="auto")
    await by_skill(desk)
    for commits, symbol in ((False, SYMBOLS[11]), (True, SYMBOLS[12])):
        signal_id = await told(desk, symbol)
        before = await version(desk)
        dying = replace(desk.portfolio, database=(lost := Dying(desk.database, commits=commits)))
        dying = replace(dying, idempotency=replace(dying.idempotency, database=lost))
        with pytest.raises(DiedError):
            await replace(desk.signal_actions, portfolio=dying).apply_approved()
        assert (await version(desk) - before, symbol in await desk.members()) == (commits, commits)
        for _ in range(2):
            await desk.signal_actions.apply_approved()
        assert (await version(desk) - before, symbol in await desk.members()) == (1, True)
        done = await judged(desk, signal_id)
        assert done.effect is not None
        assert (done.signal.state, done.effect.version) == (SignalState.APPLIED, before + 1)
