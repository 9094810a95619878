"""Lots name the numbers of the contract that they were counted by, so that old ones are known."""

from dataclasses import replace
from typing import Any

import pytest

from app.api.routes import portfolio_rebalance, portfolio_trading
from app.domain.symbols import specification_of
from app.storage.database import Database
from tests.api.harness import PREFIX, serve
from tests.services.desk import SYMBOLS, Desk

ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@ON_SQLITE
async def test_D12_lots_name_the_specification_and_are_counted_anew_by_another_one(
    database: Database,
) -> None:
    desk = await Desk(database).filled(3)
    changed, others = SYMBOLS[0], SYMBOLS[1:3]
    before = desk.market.quotes[changed].contract
    routers = [portfolio_rebalance.router, portfolio_trading.router]
    async with serve(routers, {"my_symbols": desk}) as client:

        async def planned(*, dry_run: bool = True) -> Any:
            body = {"dry_run": dry_run, "account_balance": "10000"}
            answer = await client.post(f"{PREFIX}/portfolio/rebalance", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()["lots"]

        async def sized() -> Any:
            where = f"{PREFIX}/portfolio/symbols/{changed}/position-size"
            answer = await client.get(where, params={"account_balance": "10000"})
            return answer.json()

        first, position = await planned(), await sized()
        assert first["specifications"][changed] == specification_of(before)
        assert position["specification"] == specification_of(before)
        assert position["lots"] > 0

        after = replace(before, multiplier=before.multiplier * 10)
        desk.quote(changed, contract=after)
        second = await planned()
        assert second["specifications"][changed] == specification_of(after)
        assert specification_of(after) != specification_of(before)
        assert second["lots"][changed] * 10 == pytest.approx(first["lots"][changed], abs=10)
        for symbol in others:
            assert second["specifications"][symbol] == first["specifications"][symbol]
        assert (await sized())["specification"] == specification_of(after)
        assert (await planned(dry_run=False))["specifications"] == second["specifications"]
