"""From the first signal to a change that nobody was asked for, over HTTP and a sandbox replay."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.market.domain.models import Interval
from app.market.storage.candles import CandleRepository
from app.operations.api import configuration_routes as configuration
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import proposal_routes as portfolio_proposals
from app.signals.api import routes as signals
from app.signals.domain.agents import Agent
from app.signals.services.evaluation import SignalEvaluator
from app.telemetry.observers import Meter
from tests.conftest import PATIENT, MakeDatabase
from tests.support.harness import PREFIX, serve
from tests.support.outcome_fixtures import keep_board, pass_on
from tests.support.planted_signal_fixtures import (
    A_DAY,
    DAYS,
    END,
    leaning,
    planted,
    replayed,
    winners,
)
from tests.support.signal_fixtures import informed
from tests.support.trading_desk import SYMBOLS, Desk, symbol_id

pytestmark = [pytest.mark.long, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]
ROUTERS = [
    configuration.router,
    portfolio.router,
    portfolio_proposals.router,
    signals.router,
]


def judges(truth: dict[str, bool]) -> tuple[Agent, ...]:
    """Two that are right three times in four, and one that draws lots."""
    _, lots, _ = planted(truth)
    return (leaning("skilled", truth, 0.75, 5), leaning("keen", truth, 0.75, 6), lots)


@pytest.fixture
async def counted(
    database_url: str, make_database: MakeDatabase
) -> AsyncIterator[tuple[Database, Metrics]]:
    metrics = Metrics()
    opened = make_database(database_url, publish=Meter(metrics).on_event, **PATIENT)
    await opened.open()
    yield opened, metrics
    await opened.close()


async def get(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    answer = await client.get(f"{PREFIX}{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def send(client: httpx2.AsyncClient, symbol: str, kind: str) -> Any:
    said = {
        "source_name": "desk",
        "signal_type": kind,
        "signal_strength": 0.8,
        "confidence_level": 0.9,
        "symbol": symbol,
        "signal_direction": "BUY",
    }
    answer = await client.post(f"{PREFIX}/signals", json=said)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def bought(desk: Desk, client: httpx2.AsyncClient, symbols: tuple[str, ...]) -> Any:
    """The first of them that the agents let be bought, after the look at what was approved."""
    for symbol in symbols:
        sent = await send(client, symbol, "momentum")
        if sent["state"] == "approved":
            while await desk.signal_actions.apply_approved():
                pass
            return await get(client, f"/signals/{sent['signal_id']}")
    raise AssertionError("no signal was approved")


async def test_auto_proposes_until_booked_outcomes_have_earned_weights_and_then_acts(
    counted: tuple[Database, Metrics],
) -> None:
    database, metrics = counted
    prices = replayed()
    desk = Desk(database, now=END - timedelta(days=DAYS))
    desk.market.seen_at = desk.now
    await desk.filled(8)
    async with database.write() as unit:
        series = {symbol_id(at): prices[symbol] for at, symbol in enumerate(SYMBOLS)}
        await unit.get(CandleRepository).save(series, Interval.HOUR)
    async with serve(ROUTERS, {"my_symbols": desk}) as client:
        chosen = {"automation": "auto", "automation_by_type": {"learning": "observe"}}
        put = await client.patch(f"{PREFIX}/configuration", json={"signals": chosen})
        assert put.status_code == 200, put.text
    others = SYMBOLS[8:24]
    for day in range(3):
        informed(desk)
        if day == 0:
            await keep_board(desk)
        truth = winners(prices, day)
        desk.signals = replace(desk.signals, evaluator=SignalEvaluator(judges(truth)))
        # Routes get the use cases of the moment when the application opens.
        async with serve(ROUTERS, {"my_symbols": desk}) as client:
            before = await get(client, "/portfolio")
            statistics = await get(client, "/signals/statistics")
            assert statistics["is_skill_weighted"] is (day == 2), "fifty outcomes are needed"
            found = await bought(desk, client, others)
            after = await get(client, "/portfolio")
            if day < 2:
                assert (found["state"], found["effect"]["automation"]) == ("approved", "propose")
                assert after["version"] == before["version"]
                for symbol in SYMBOLS[:A_DAY]:
                    await send(client, symbol, "learning")
                pass_on(desk, days=1)
                await desk.signal_outcomes.book()
    weights = {one["agent"]: one["weight"] for one in statistics["agents"]}
    assert min(weights["skilled"], weights["keen"]) > 0.3 > weights["random"]
    assert found["state"] == "applied"
    assert (found["effect"]["automation"], found["effect"]["move"]) == ("auto", "add")
    assert found["effect"]["version"] == after["version"] == before["version"] + 1
    assert found["symbol"] in {one["symbol"] for one in after["members"]}
    newest = await desk.queries.history(None, 3)
    (event,) = [one for one in newest if one.symbol == found["symbol"]]
    assert found["signal_id"] in event.reason
    lines = metrics.render().decode().splitlines()
    booked = {one.split()[0]: one.split()[1] for one in lines if "signal_outcomes_total{" in one}
    assert sum(map(float, booked.values())) >= 2 * A_DAY
    assert booked['mysymbols_signal_outcomes_total{result="unknown"}'] == "0.0"
