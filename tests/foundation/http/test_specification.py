"""Lots name the numbers of the contract that they were counted by, so that old ones are known."""

from dataclasses import replace
from typing import Any

import pytest

from app.foundation.sql.database import Database
from app.market.domain.symbols import specification_of
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.trading.api import routes as portfolio_trading
from tests.support.harness import PREFIX, serve
from tests.support.trading_desk import SYMBOLS, Desk

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


@ON_SQLITE
async def test_D12_lots_of_another_specification_are_not_to_be_ordered_and_planned_anew(
    database: Database,
) -> None:
    desk = await Desk(database).filled(3)
    symbol, other = SYMBOLS[:2]
    routers = [portfolio_rebalance.router, portfolio_trading.router]
    async with serve(routers, {"my_symbols": desk}) as client:

        async def named(of: str = symbol) -> str:
            body = {"dry_run": True, "account_balance": "10000"}
            answer = await client.post(f"{PREFIX}/portfolio/rebalance", json=body)
            return str(answer.json()["lots"]["specifications"][of])

        async def asked(of: str, **query: str) -> tuple[bool, list[str]]:
            where = f"{PREFIX}/portfolio/symbols/{of}/should-trade"
            answer = await client.get(where, params=query)
            assert answer.status_code == 200, answer.text
            said = answer.json()
            return said["trade"], [one["name"] for one in said["checks"] if not one["passed"]]

        counted_by, others = await named(), await named(other)
        assert await asked(symbol, specification=counted_by) == (True, [])
        before = desk.market.quotes[symbol].contract
        changes: tuple[dict[str, Any], ...] = (
            {"multiplier": before.multiplier * 10},
            {"tick_size": before.tick_size * 2},
            {"lot_size": before.lot_size + 1},
        )
        for change in changes:
            desk.quote(symbol, contract=replace(before, **change))
            assert await asked(symbol, specification=counted_by) == (False, ["specification"])
            assert await asked(symbol) == (True, []), "nobody has counted lots"
            assert await asked(other, specification=others) == (True, [])
            anew = await named()
            assert anew != counted_by
            assert await asked(symbol, specification=anew) == (True, [])
        del desk.market.quotes[symbol]
        assert "specification" in (await asked(symbol, specification=counted_by))[1]
        where = f"{PREFIX}/portfolio/symbols/{symbol}/should-trade"
        assert (await client.get(where, params={"specification": "x'--"})).status_code == 422
