"""While nobody knows the exchange's time nothing is decided, and everything can be read."""

from typing import Any

import httpx2
import pytest

from app.foundation.sql.database import Database
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.trading.api import routes as portfolio_safety
from app.trading.api import routes as portfolio_trading
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, Desk

MODULES = (
    portfolio,
    portfolio_changes,
    portfolio_rebalance,
    portfolio_safety,
    portfolio_trading,
)
ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@ON_SQLITE
async def test_T01_without_the_exchanges_time_nothing_is_decided(database: Database) -> None:
    desk = await Desk(database).filled(9)
    desk.score({SYMBOLS[0]: 0.61})
    desk.market.clock_safe = False
    calls: tuple[tuple[str, dict[str, str]], ...] = (
        ("/rebalance", {}),
        ("/add-symbol", {"symbol": SYMBOLS[20]}),
        ("/replace-symbol", {"old_symbol": SYMBOLS[8], "new_symbol": SYMBOLS[20]}),
    )
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as client:

        async def get(path: str, **query: Any) -> Any:
            answer = await client.get(f"{PREFIX}/portfolio{path}", params=query)
            assert answer.status_code == 200, answer.text
            return answer.json()

        async def post(path: str, body: dict[str, str]) -> httpx2.Response:
            return await client.post(f"{PREFIX}/portfolio{path}", json=body)

        before = await get("")
        for path, body in calls:
            refused = await post(path, body)
            assert problem(refused, 503, "clock_unsafe")
            assert refused.headers["retry-after"] == "30"
        assert (await get(""))["members"] == before["members"]
        (run,) = (await get("/rebalances"))["items"]
        assert run["state"] == "aborted_stale"
        said = await get(f"/symbols/{SYMBOLS[1]}/should-trade")
        assert (said["trade"], said["reason"]) == (False, "the exchange's time is not known")
        sized = await get(
            f"/symbols/{SYMBOLS[1]}/position-size", account_balance="10000", leverage="1"
        )
        assert sized["lots"] == 0
        assert (await get("/tradeable"))["symbols"] == []
        assert [one["code"] for one in (await get("/safety"))["issues"]] == ["clock_unsafe"]
        desk.market.clock_safe = True
        assert (await get(f"/symbols/{SYMBOLS[1]}/should-trade"))["trade"]
        assert len((await get("/tradeable"))["symbols"]) == 9
        assert (await post(*calls[0])).status_code == 200
