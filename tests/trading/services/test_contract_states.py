"""What the exchange changes in a contract over a real socket: its state, its funding interval."""

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise

import pytest

from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.market.storage.market_data import MarketRepository
from app.portfolio.services.tradeability import OPEN
from tests.support.live_market import LiveMarket, open_market
from tests.support.trading_desk import SYMBOLS, Desk

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
ETH, CODE = "ETHUSDT", "ETHUSDTM"
HOUR_MS = 3_600_000
SHUT = ("Paused", "CancelOnly", "BeingSettled", "Settled", "Closed")


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveMarket]:
    async with open_market(database, contracts=9) as opened:
        yield opened


async def test_D14_a_contract_in_any_other_state_than_open_is_not_eligible_after_one_refresh(
    live: LiveMarket,
) -> None:
    data = live.market()
    await data.refresh_market()

    def failed(symbol: str) -> set[str]:
        checks = data.eligibility(data.resolve(symbol))
        return {one.name for one in checks if not one.passed}

    calm, shown = failed(ETH), data.view(data.resolve(ETH)).last
    began = live.clock.now() + timedelta(seconds=60)
    for state in SHUT:
        await live.fault("contract_status", symbol=CODE, status=state, listed=True)
        live.clock.pass_(60)
        await data.refresh_market()
        assert data.resolve(ETH).contract.status is ContractStatus(state)
        assert failed(ETH) > calm, state
        assert ETH not in data.funnel().eligible
        assert failed("BTCUSDT") == calm, "the others are as they were"
        assert shown is not None
        assert data.view(data.resolve(ETH)).last is not None, "it is shown all the same"
        quote = data.quote(ETH)
        assert quote is not None
        assert quote.paused_since == (began if state in {"Paused", "CancelOnly"} else None)
        await live.heal()
    live.clock.pass_(60)
    await data.refresh_market()
    assert failed(ETH) == calm


async def test_D14_no_order_is_told_in_any_other_state_and_the_others_go_on(
    database: Database,
) -> None:
    desk = await Desk(database).filled(4)
    for state in SHUT:
        desk.status(SYMBOLS[1], ContractStatus(state))
        verdict, _ = await desk.trading.should_trade(SYMBOLS[1])
        assert [one.name for one in verdict.checks if not one.passed] == [OPEN], state
        found = {one.symbol for one in (await desk.trading.tradeable())[0]}
        assert found == {SYMBOLS[0], *SYMBOLS[2:4]}, state


async def test_D09_another_funding_interval_changes_no_rate_that_was_settled_before(
    live: LiveMarket,
) -> None:
    data = live.market()
    await data.refresh_market()
    entry = data.resolve(ETH)
    await data.fetch.funding([entry])
    before = data.live.market.funding[CODE].value
    assert {one.interval_ms for one in before[1:]} == {8 * HOUR_MS}
    await live.post("events", {"kind": "funding_interval", "symbol": CODE, "hours": 4})
    live.clock.pass_(24 * 3_600)
    await data.refresh_market()
    await data.fetch.funding([data.resolve(ETH)])
    after = data.live.market.funding[CODE].value
    assert after[: len(before)] == before, "what was settled is what it was"
    gaps = [two.settled_ms - one.settled_ms for one, two in pairwise(after)]
    assert [one.interval_ms for one in after[1:]] == gaps, "each rate has its own"
    assert gaps[-1] == 4 * HOUR_MS
    async with live.database.read() as unit:
        stored = (await unit.get(MarketRepository).funding([entry.symbol_id], 0))[entry.symbol_id]
    assert tuple(stored) == after
