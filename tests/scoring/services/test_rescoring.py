"""Scoring that prices bring about: of members, beyond a limit, not more often than its pause."""

from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import FeedSettings
from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.database import Database
from app.market.services.backfill import first_fill
from app.market.services.state import joined
from app.scoring.services.rescoring import Rescoring
from tests.support.live_market import LiveMarket, open_market

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
RULES = FeedSettings(
    rescore_move_bp=100.0, rescore_move_volatilities=0.0, rescore_min_interval_s=30
)


class Desk:
    """A market in front of members and a board of which only the name matters."""

    def __init__(self, live: LiveMarket) -> None:
        self.live = live
        self.data = live.market(Configuration(feed=RULES))
        self.runs = 0
        self.board: Any = SimpleNamespace(run_id="run-0")
        self.away = False
        self.rescoring = Rescoring(self.data, self.members, lambda: self.board, self.score)

    async def members(self) -> tuple[str, ...]:
        if self.away:
            raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away")
        return ("BTCUSDT", "ETHUSDT")

    async def score(self) -> None:
        self.runs += 1
        self.board = SimpleNamespace(run_id=f"run-{self.runs}")

    def move(self, code: str, factor: str) -> None:
        market = self.data.live.market
        held = market.tickers[code]
        bid, ask = held.value.bid, held.value.ask
        assert bid is not None
        assert ask is not None
        by = type(bid)(factor)
        moved = held.with_value(held.value._replace(bid=bid * by, ask=ask * by))
        tickers = joined(market.tickers, {code: moved})
        self.data.live.publish(replace(market, tickers=tickers))


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    async with open_market(database, contracts=14) as live:
        made = Desk(live)
        await first_fill(made.data)
        await made.rescoring.check()
        yield made


async def test_a_member_that_moves_is_scored_again_and_the_pause_is_kept(desk: Desk) -> None:
    await desk.rescoring.check()
    desk.move("XBTUSDTM", "1.005")
    await desk.rescoring.check()
    assert desk.runs == 0, "half a per cent is less than the limit"
    desk.move("SOLUSDTM", "2")
    await desk.rescoring.check()
    assert desk.runs == 0, "nobody holds it"
    desk.move("XBTUSDTM", "1.01")
    await desk.rescoring.check()
    assert desk.runs == 1
    await desk.rescoring.check()  # the new board is where it goes on from
    desk.move("XBTUSDTM", "0.9")
    await desk.rescoring.check()
    assert desk.runs == 1, "the pause is not over"
    desk.live.clock.pass_(31.0)
    await desk.rescoring.check()
    assert desk.runs == 2


async def test_a_stale_or_one_sided_quote_brings_nothing_about(desk: Desk) -> None:
    desk.move("XBTUSDTM", "2")
    desk.live.clock.pass_(3_600.0)
    await desk.rescoring.check()
    assert desk.runs == 0


async def test_before_the_first_board_there_is_nothing_to_score_again(desk: Desk) -> None:
    desk.board = None
    desk.move("XBTUSDTM", "2")
    await desk.rescoring.check()
    assert desk.runs == 0


async def test_without_the_database_the_members_are_those_that_were_seen_last(desk: Desk) -> None:
    desk.away = True
    desk.move("ETHUSDTM", "1.5")
    await desk.rescoring.check()
    assert desk.runs == 1
