"""The agents on the sandbox's market, the whole way: one input of it turns each of them over."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import SignalSettings
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.sql.database import Database
from app.market.services.backfill import first_fill
from app.scoring.domain.board import Board, CardStatus
from app.scoring.services.service import Scoring
from app.signals.domain.agents import AGENTS, SignalFeatures, UniverseContext
from app.signals.domain.consensus import Recommendation, Vote, reach_consensus
from app.signals.domain.models import Direction
from tests.conftest import PATIENT, MakeDatabase
from tests.support.live_market import LiveMarket, open_market

pytestmark = [pytest.mark.long, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]

DAYS = 40  # a fall is no movement of these days any more, and still far below the high
APPROVE, REJECT = Recommendation.APPROVE, Recommendation.REJECT


@dataclass(frozen=True)
class Turn:
    """The one input of a contract that is another in the other world."""

    code: str
    symbol: str
    one: Mapping[str, float]
    other: Mapping[str, float]


TURNS: Mapping[str, Turn] = {
    "technical": Turn("XBTUSDTM", "BTCUSDT", {}, {"price_factor": 0.4}),
    "fundamental": Turn(
        "ADAUSDTM",
        "ADAUSDT",
        {"funding_rate": -0.002, "days": 5},
        {"funding_rate": 0.002, "days": 5},
    ),
    "market_structure": Turn("ETHUSDTM", "ETHUSDT", {}, {"spread_factor": 60.0}),
    "risk": Turn("PEPEUSDTM", "PEPEUSDT", {}, {"price_factor": 0.15}),
}
Votes = Mapping[str, Mapping[str, Vote]]


async def board_of(live: LiveMarket, plants: Mapping[str, Mapping[str, float]]) -> Board:
    """The board of a market some time after `plants` were made."""
    for code, plant in plants.items():
        await live.post("market", {"symbol": code, **plant})
    live.clock.pass_(DAYS * 86_400)
    market = live.market()
    await first_fill(market)
    scoring = Scoring(
        market=market,
        database=live.database,
        clock=live.clock.now,
        monotonic=live.clock.monotonic,
        new_id=lambda: str(UUID(int=next(live.numbers))),
        configuration=Configuration,
        idempotency=IdempotentExecutor(live.database, live.clock.now),
    )
    return await scoring.calculate()


def votes(board: Board) -> Votes:
    """What each agent says of buying each symbol."""
    around, rules = UniverseContext.of(board), SignalSettings()
    scored = (card for card in board.cards if card.status is CardStatus.SCORED)
    return {
        card.symbol: {
            vote.agent: vote
            for vote in reach_consensus(Direction.BUY, SignalFeatures.of(card, around), rules).votes
        }
        for card in scored
    }


async def world(database: Database, plants: Mapping[str, Mapping[str, float]]) -> Votes:
    async with open_market(database, contracts=24) as live:
        return votes(await board_of(live, plants))


async def test_one_input_of_the_market_turns_each_agent_over(
    database: Database, make_database: MakeDatabase, sqlite_template: Path, tmp_path: Path
) -> None:
    one = await world(database, {turn.code: turn.one for turn in TURNS.values()})
    shutil.copy(sqlite_template, tmp_path / "other.sqlite3")
    elsewhere = make_database(f"sqlite+aiosqlite:///{tmp_path / 'other.sqlite3'}", **PATIENT)
    await elsewhere.open()
    try:
        other = await world(elsewhere, {turn.code: turn.other for turn in TURNS.values()})
    finally:
        await elsewhere.close()
    assert set(TURNS) == {agent.name for agent in AGENTS}
    for agent, turn in TURNS.items():
        said = [world[turn.symbol][agent].recommendation for world in (one, other)]
        assert said == [APPROVE, REJECT], (agent, one[turn.symbol], other[turn.symbol])
