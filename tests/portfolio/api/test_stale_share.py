"""Three in ten of all symbols are stale when weights are planned: over HTTP, from end to end."""

from typing import Any

import httpx2
import pytest

from app.foundation.sql.database import Database
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, WHO, Desk

MODULES = (
    portfolio,
    portfolio_changes,
    portfolio_rebalance,
)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_D21_with_three_in_ten_stale_their_weights_stand_and_nothing_of_them_is_bought(
    database: Database,
) -> None:
    desk = await Desk(database).filled(10)
    held = SYMBOLS[:2]  # of ten members
    silent = (*held, *SYMBOLS[10:26])
    assert len(silent) == 0.3 * len(SYMBOLS)
    desk.stale(*silent)
    # The best of all by far, and still: nobody knows what they cost. Another one falls behind.
    desk.score({SYMBOLS[0]: 0.999, SYMBOLS[1]: 0.2, SYMBOLS[9]: 0.3, SYMBOLS[10]: 0.998})
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as client:

        async def get(path: str) -> Any:
            answer = await client.get(f"{PREFIX}/portfolio{path}")
            assert answer.status_code == 200, answer.text
            return answer.json()

        async def post(path: str, **body: Any) -> httpx2.Response:
            return await client.post(f"{PREFIX}/portfolio{path}", json=body)

        def weights(shown: Any) -> dict[str, Any]:
            return {one["symbol"]: one["weight_percentage"] for one in shown["members"]}

        before = await get("")
        done = await post("/rebalance")
        assert done.status_code == 200, done.text
        moved = {one["symbol"] for one in done.json()["changes"]}
        assert SYMBOLS[9] in moved, "the fresh ones are weighed anew"
        assert not moved & {*silent}
        middle = await get("")
        assert [weights(middle)[one] for one in held] == [weights(before)[one] for one in held]
        assert weights(middle).keys() == weights(before).keys()
        await desk.configuration.put({"max_portfolio_symbols": 11}, "room for one more", WHO)
        for path, body in (
            ("/add-symbol", {"symbol": SYMBOLS[10]}),
            ("/replace-symbol", {"old_symbol": SYMBOLS[9], "new_symbol": SYMBOLS[10]}),
        ):
            problem(await post(path, **body), 503, "market_data_stale")
        assert (await post("/add-symbol", symbol=SYMBOLS[30])).status_code == 201
        await desk.portfolio.remove(SYMBOLS[30], "only to see that a fresh one may", WHO)

        desk.stale(SYMBOLS[2])  # fewer than eight in ten of the members are known
        desk.score({SYMBOLS[3]: 0.2})
        before, past = await get(""), await get("/history")
        refused = await post("/rebalance")
        problem(refused, 503, "market_data_stale")
        assert refused.headers["retry-after"] == "30"
        after = await get("")
        unchanged = ("version", "members", "size", "cash_percentage")
        assert {name: after[name] for name in unchanged} == {
            name: before[name] for name in unchanged
        }, "version, weights and ranks"
        assert await get("/history") == past
        newest = (await get("/rebalances"))["items"][0]
        assert newest["state"] == "aborted_stale"
