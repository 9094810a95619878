"""State version: every change makes another one, and so does a flip of freshness."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from app.foundation.data_status import DataStatus
from app.foundation.sql.database import Database
from app.foundation.state_version import Input
from app.market.services.service_mode import Cause, MarketLevel, ModeState
from app.operations.services.state_version_source import (
    TICK_S,
    LiveMarketParts,
    StateVersionSource,
)
from app.portfolio.services.state_cache import PortfolioStateCache
from app.portfolio.storage.portfolio import PortfolioRepository
from app.scoring.domain.board import Board
from tests.conftest import PATIENT, MakeDatabase
from tests.portfolio.services.test_reads_from_memory import (
    ON_POSTGRES,
    ON_SQLITE,
    _booked,
    _switched,
)
from tests.support.trading_desk import Desk

PARTS = (Input.SCORES, Input.SYMBOLS, Input.MARKET, Input.PORTFOLIO)


@dataclass
class Levers:
    """State whose parts a test changes one at a time."""

    desk: Desk
    listing: object = "listing"
    prices: object = "prices"
    stale: int = 0
    market_status: DataStatus = DataStatus.FRESH
    of_board: DataStatus = DataStatus.FRESH
    halted: Cause | None = None

    def symbols(self) -> tuple[object, ...]:
        return (self.listing,)

    def quotes(self) -> tuple[object, ...]:
        return (self.prices,)

    def stale_symbols(self) -> int:
        return self.stale

    def mode(self) -> ModeState:
        return ModeState.from_level(MarketLevel(self.market_status, 0), halted=self.halted)

    def latest(self) -> Board | None:
        return self.desk.boards.latest()

    def latest_complete(self) -> Board | None:
        return self.desk.boards.latest_complete()

    def has_complete_board(self) -> bool:
        return self.desk.boards.has_complete_board()

    def age_status(self, board: Board) -> DataStatus:
        assert board is self.latest()
        return self.of_board

    def source(self) -> StateVersionSource:
        desk = self.desk
        return StateVersionSource(
            desk.database, PortfolioStateCache(), self, self, lambda: desk.now, self.mode
        )


async def _commit(levers: Levers) -> None:
    await _booked(levers.desk)


async def _switch(levers: Levers) -> None:
    await _switched(levers.desk)


async def _symbols(levers: Levers) -> None:
    levers.listing = "another"


async def _quotes(levers: Levers) -> None:
    levers.prices = "other prices"


async def _board(levers: Levers) -> None:
    levers.desk.score({})


async def _first_fill(levers: Levers) -> None:
    levers.desk.boards.whole = not levers.desk.boards.whole


async def _a_symbol_turns_stale(levers: Levers) -> None:
    levers.stale = 1


async def _the_market_turns_stale(levers: Levers) -> None:
    levers.market_status = DataStatus.STALE


async def _the_board_turns_stale(levers: Levers) -> None:
    levers.of_board = DataStatus.STALE


async def _mode(levers: Levers) -> None:
    levers.halted = Cause.STORAGE_FULL


async def _clock(levers: Levers) -> None:
    levers.desk.later(seconds=TICK_S)


async def _clock_set_back(levers: Levers) -> None:
    levers.desk.later(seconds=-1)


WHOLE = Input.DECISION
CHANGES = (
    (_commit, Input.PORTFOLIO),
    (_switch, Input.PORTFOLIO),
    (_symbols, Input.SYMBOLS | Input.MARKET),
    (_quotes, Input.MARKET),
    (_board, Input.SCORES),
    (_first_fill, Input.SCORES),
    (_a_symbol_turns_stale, Input.MARKET),
    (_the_market_turns_stale, WHOLE),
    (_the_board_turns_stale, Input.SCORES),
    (_mode, WHOLE),  # a header of every response
    (_clock, Input.MARKET),
    (_clock_set_back, Input.MARKET),
)


@ON_SQLITE
@pytest.mark.parametrize(("change", "changed"), CHANGES)
async def test_every_change_makes_another_version_of_its_parts(
    desk: Desk, change: Any, changed: Input
) -> None:
    levers = Levers(await desk.filled())
    source = levers.source()
    before = {part: await source.load_version(part) for part in PARTS}
    assert before == {part: await source.load_version(part) for part in PARTS}
    whole = await source.load_version(Input.DECISION)
    await change(levers)
    after = {part: await source.load_version(part) for part in PARTS}
    assert [part for part in PARTS if after[part] != before[part]] == list(changed)
    assert await source.load_version(Input.DECISION) != whole


@ON_SQLITE
async def test_the_only_process_asks_the_database_after_its_own_commits(desk: Desk) -> None:
    source = Levers(await desk.filled()).source()
    assert source.version(Input.PORTFOLIO) is None
    before = await source.load_version(Input.PORTFOLIO)
    assert source.version(Input.PORTFOLIO) == before
    async with desk.database.write() as unit:
        await unit.get(PortfolioRepository).load(for_update=True)
    assert source.version(Input.PORTFOLIO) is None
    assert await source.load_version(Input.PORTFOLIO) == before  # nothing was changed
    assert source.version(Input.PORTFOLIO) == before


@ON_POSTGRES
async def test_a_commit_of_another_process_makes_another_version(
    database: Database, database_url: str, make_database: MakeDatabase
) -> None:
    desk = await Desk(database).filled()
    source = Levers(desk).source()
    before = await source.load_version(Input.PORTFOLIO)
    assert source.version(Input.PORTFOLIO) is None
    assert await source.load_version(Input.PORTFOLIO) == before
    other = make_database(database_url, **PATIENT)
    await other.open()
    await _switched(Desk(other, desk.market, desk.boards, desk.now))
    await other.close()
    assert await source.load_version(Input.PORTFOLIO) != before


class Part:
    """Equal to itself only."""


def test_each_part_of_the_live_market_is_in_its_version() -> None:
    registry = SimpleNamespace(known=Part(), sectors=Part())
    live = SimpleNamespace(market=Part())
    market: Any = SimpleNamespace(registry=registry, live=live, trading=Part(), rules=Part())
    market.configuration = lambda: market.rules
    parts = LiveMarketParts(market)
    owners = [(registry, "known"), (registry, "sectors"), (live, "market")]
    for owner, name in [*owners, (market, "trading"), (market, "rules")]:
        before = (*parts.symbols(), *parts.quotes())
        assert before == (*parts.symbols(), *parts.quotes())
        setattr(owner, name, Part())
        assert before != (*parts.symbols(), *parts.quotes()), name
