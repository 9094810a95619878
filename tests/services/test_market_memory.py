"""What is worked out over the whole market is kept for exactly as long as it is true."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.domain.configuration import Configuration, EligibilityFloors
from app.domain.eligibility import Funnel
from app.domain.panel import Source
from app.services.backfill import first_fill
from app.services.market_data import MarketData
from app.services.market_memory import MarketMemory
from app.services.quotes import quoted
from app.storage.database import Database
from tests.services.live_market import LiveMarket, open_market

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveMarket]:
    async with open_market(database, contracts=14) as opened:
        yield opened


def seen(data: MarketData) -> tuple[Funnel, int]:
    """Compared with what somebody finds who remembers nothing."""
    moment = data.moment()
    anew = replace(moment, memory=MarketMemory())
    found = (moment.funnel(), moment.stale_symbols())
    assert found == (anew.funnel(), anew.stale_symbols())
    assert moment.status() is anew.status()
    for symbol in (*(entry.symbol for entry in moment.known.index.entries), "NOSUCH"):
        assert data.quote(symbol) == quoted(anew, symbol)[0]
    return found


async def test_it_is_worked_out_once_and_anew_when_something_turns(live: LiveMarket) -> None:
    settings = [Configuration()]
    data = live.market()
    data.configuration = lambda: settings[0]
    await first_fill(data)
    funnel, stale = seen(data)
    assert funnel.eligible
    assert stale == 0
    assert data.moment().funnel() is funnel
    name = funnel.eligible[0]
    assert data.quote(name) is data.quote(name)
    before = data.quote(name)
    assert before is not None
    assert before.is_fresh

    oldest = min(one.mono for one in data.live.market.tickers.values())
    limit_s = settings[0].age_limit_s(Source.TICKERS)
    live.clock.pass_(oldest + limit_s - live.clock.monotonic())
    assert seen(data) == (funnel, 0)  # at its limit a quote is fresh
    live.clock.pass_(0.5)
    assert seen(data)[0].eligible == ()
    assert seen(data)[1] > 0
    after = data.quote(name)
    assert after is not None
    assert not after.is_fresh

    await data.refresh_market()
    assert seen(data)[1] == 0
    floors = EligibilityFloors(min_daily_bars=10_000)
    settings[0] = replace(settings[0], eligibility=floors)
    assert seen(data)[0].eligible == ()
