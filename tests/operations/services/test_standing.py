"""The stand of reads from memory: every change makes another one, and so does time."""

from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from app.foundation.data_status import DataStatus
from app.foundation.sql.database import Database
from app.foundation.sql.facts import FactRepository
from app.market.services.service_mode import MarketLevel
from app.operations.services.response_version import (
    KEEP_S,
    YOUNG_S,
    MarketThings,
    Rests,
    Stand,
    Standing,
)
from app.portfolio.services.state_cache import Memory
from app.portfolio.storage.portfolio import PortfolioRepository
from app.scoring.domain.board import Board
from tests.conftest import PATIENT, MakeDatabase
from tests.portfolio.services.test_reads_from_memory import (
    ON_POSTGRES,
    ON_SQLITE,
    _booked,
    _switched,
)
from tests.support.desk import Desk

ALL = Rests.COMMITTED | Rests.QUOTES


@dataclass
class Levers:
    desk: Desk
    market: object = "market"
    said: object = "quotes"
    mono: float = 100.0
    pace: float = 2 * YOUNG_S
    stale: int = 0
    status: DataStatus = DataStatus.FRESH
    of_board: DataStatus = DataStatus.FRESH

    def quotes(self) -> object:
        return self.said

    def things(self) -> tuple[object, ...]:
        return (self.market,)

    def level(self) -> MarketLevel:
        return MarketLevel(self.status, self.stale)

    def latest(self) -> Board | None:
        return self.desk.boards.latest()

    def in_force(self) -> Board | None:
        return self.desk.boards.in_force()

    def is_whole(self) -> bool:
        return self.desk.boards.is_whole()

    def own_status_of(self, board: Board) -> DataStatus:
        assert board is self.latest()
        return self.of_board

    def standing(self) -> Standing:
        desk = self.desk
        return Standing(desk.database, Memory(), self, self, lambda: desk.now, self.ticking)

    def ticking(self) -> float:
        """Long enough between two looks that both are taken."""
        self.mono += self.pace
        return self.mono


async def _commit(levers: Levers) -> None:
    await _booked(levers.desk)


async def _switch(levers: Levers) -> None:
    await _switched(levers.desk)


async def _market(levers: Levers) -> None:
    levers.market = "another"


async def _quotes(levers: Levers) -> None:
    levers.said = "other quotes"


async def _board(levers: Levers) -> None:
    levers.desk.score({})


async def _whole(levers: Levers) -> None:
    levers.desk.boards.whole = not levers.desk.boards.whole


async def _a_symbol_turns_stale(levers: Levers) -> None:
    levers.stale = 1


async def _the_market_turns_stale(levers: Levers) -> None:
    levers.status = DataStatus.STALE


async def _the_board_turns_stale(levers: Levers) -> None:
    levers.of_board = DataStatus.STALE


async def _clock(levers: Levers) -> None:
    levers.desk.later(seconds=KEEP_S * 1.01)


async def _clock_set_back(levers: Levers) -> None:
    levers.desk.later(seconds=-1)


async def _monotonic(levers: Levers) -> None:
    levers.mono += KEEP_S * 1.01


MOVES = (
    _commit,
    _switch,
    _market,
    _quotes,
    _board,
    _whole,
    _a_symbol_turns_stale,
    _the_market_turns_stale,
    _the_board_turns_stale,
    _clock,
    _clock_set_back,
    _monotonic,
)


@ON_SQLITE
@pytest.mark.parametrize("move", MOVES)
async def test_every_change_makes_another_stand(desk: Desk, move: Any) -> None:
    levers = Levers(await desk.filled())
    standing = levers.standing()
    before = await standing.asked()
    assert before.serves(await standing.asked(), ALL)
    await move(levers)
    assert not before.serves(await standing.asked(), ALL)


@ON_SQLITE
@pytest.mark.parametrize(
    ("move", "part"),
    [(_commit, Rests.COMMITTED), (_switch, Rests.COMMITTED), (_quotes, Rests.QUOTES)],
)
async def test_what_an_answer_does_not_rest_on_leaves_it_as_it_is(
    desk: Desk, move: Any, part: Rests
) -> None:
    levers = Levers(await desk.filled())
    standing = levers.standing()
    before = await standing.asked()
    await move(levers)
    now = await standing.asked()
    assert before.serves(now, Rests.SCORES)
    assert before.serves(now, ALL ^ part)
    assert not before.serves(now, part)


@ON_SQLITE
async def test_a_moment_later_the_same_answer_is_still_true(desk: Desk) -> None:
    levers = Levers(await desk.filled())
    standing = levers.standing()
    before = await standing.asked()
    desk.now += timedelta(seconds=KEEP_S / 2)
    levers.mono += KEEP_S / 2
    assert before.serves(await standing.asked(), ALL)


@ON_SQLITE
async def test_in_the_same_moment_only_what_changed_makes_another_stand(desk: Desk) -> None:
    levers = Levers(await desk.filled(), pace=0.0)
    standing = levers.standing()
    before = await standing.asked()
    levers.stale = 1  # nobody looks at ages again so soon
    assert standing.now() is before
    levers.said = "other quotes"
    assert standing.now().verdicts != before.verdicts
    assert not before.serves(standing.now(), ALL)
    levers.stale = 2
    levers.mono += 2 * YOUNG_S
    assert standing.now().verdicts[0] == levers.level()


@ON_SQLITE
async def test_the_only_process_knows_without_asking_until_it_has_committed(desk: Desk) -> None:
    standing = Levers(await desk.filled()).standing()
    assert standing.now().committed is None
    before = await standing.asked()
    known = standing.now()
    assert before.serves(known, ALL)
    async with desk.database.write() as unit:
        await unit.get(FactRepository).put("apart", 1)
    assert before.serves(standing.now(), ALL)  # nothing of it is in what is read
    async with desk.database.write() as unit:
        await unit.get(PortfolioRepository).load(for_update=True)
    assert standing.now().committed is None
    assert before.serves(await standing.asked(), ALL)  # that was no change of what is read


@ON_POSTGRES
async def test_what_another_process_commits_makes_another_stand(
    database: Database, database_url: str, make_database: MakeDatabase
) -> None:
    desk = await Desk(database).filled()
    standing = Levers(desk).standing()
    before = await standing.asked()
    assert standing.now().committed is None
    assert before.serves(await standing.asked(), ALL)
    other = make_database(database_url, **PATIENT)
    await other.open()
    await _switched(Desk(other, desk.market, desk.boards, desk.now))
    await other.close()
    assert not before.serves(await standing.asked(), ALL)


def _stand(market: Any) -> Stand:
    said = MarketThings(market)
    return Stand(None, said.quotes(), said.things(), (), Desk.now, 0.0)


class Thing:
    """Told apart from every other."""


def test_each_part_of_the_market_is_a_part_of_the_stand() -> None:
    registry = SimpleNamespace(known=Thing(), sectors=Thing())
    live = SimpleNamespace(market=Thing())
    market: Any = SimpleNamespace(registry=registry, live=live, trading=Thing(), rules=Thing())
    market.configuration = lambda: market.rules
    parts = [(registry, "known"), (registry, "sectors"), (live, "market")]
    for owner, name in [*parts, (market, "trading"), (market, "rules")]:
        before = _stand(market)
        assert before.serves(_stand(market), Rests.QUOTES)
        setattr(owner, name, Thing())
        assert not before.serves(_stand(market), Rests.QUOTES), name
