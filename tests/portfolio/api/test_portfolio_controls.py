"""Switch, locks, methods and lots over HTTP."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from app.foundation.sql.database import Database
from app.portfolio.api import control_routes as portfolio_controls
from app.portfolio.api import membership_routes as portfolio_changes
from app.portfolio.api import portfolio_routes as portfolio
from app.portfolio.api import rebalance_routes as portfolio_rebalance
from app.trading.api import routes as portfolio_trading
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.trading_desk import SYMBOLS, Desk

MODULES = (
    portfolio,
    portfolio_changes,
    portfolio_controls,
    portfolio_rebalance,
    portfolio_trading,
)


@pytest.fixture
async def desk(database: Database) -> Desk:
    return await Desk(database).filled()


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([one.router for one in MODULES], {"my_symbols": desk}) as opened:
        yield opened


async def send(client: httpx2.AsyncClient, verb: str, path: str, **body: Any) -> tuple[int, Any]:
    url = f"{PREFIX}/portfolio{path}"
    response = await client.request(verb, url, json=body or None)
    return response.status_code, response.json()


async def test_the_switch(client: httpx2.AsyncClient) -> None:
    status, first = await send(client, "GET", "/trading-switch")
    assert (status, first["enabled"], first["changed_at"]) == (200, True, None)
    asked = {"enabled": False, "reason": "halt", "user": "ops"}
    status, off = await send(client, "PUT", "/trading-switch", **asked)
    assert (status, off["enabled"], off["changed_by"]) == (200, False, "local")
    status, refused = await send(client, "POST", "/rebalance", reason="now")
    assert (status, refused["code"]) == (409, "trading_disabled")
    _, answer = await send(client, "GET", f"/symbols/{SYMBOLS[0]}/should-trade")
    assert answer["trade"] is False


async def test_locks(client: httpx2.AsyncClient) -> None:
    path = f"/locks/{SYMBOLS[40]}"
    assert (await send(client, "GET", path))[0] == 404
    asked = {"kind": "ban", "reason": "unlock ahead", "expires_at": "2027-01-01T00:00:00Z"}
    status, made = await send(client, "PUT", path, **asked)
    assert (status, made["symbol"], made["kind"]) == (200, SYMBOLS[40], "ban")
    assert made["expires_at"] == "2027-01-01T00:00:00Z"
    assert (await send(client, "GET", path)) == (200, made)
    assert (await send(client, "GET", "/locks")) == (200, {"locks": [made]})
    swap = {"old_symbol": SYMBOLS[0], "new_symbol": SYMBOLS[40]}
    status, refused = await send(client, "POST", "/replace-symbol", **swap)
    assert (status, refused["code"]) == (409, "symbol_banned")
    url, once = f"{PREFIX}/portfolio/locks", {"Idempotency-Key": "k"}
    assert (await client.delete(f"{url}/{SYMBOLS[40]}", headers=once)).json() == made
    other = await client.delete(f"{url}/{SYMBOLS[41]}", headers=once)
    problem(other, 422, "idempotency_key_reused")
    assert (await send(client, "DELETE", path))[0] == 404
    watch = {"kind": "watch", "reason": "new listing"}
    assert (await send(client, "PUT", path, **watch))[1]["kind"] == "watch"
    status, found = await send(client, "GET", "/watch-list")
    assert (status, found["data_status"]) == (200, "fresh")
    (line,) = found["symbols"]
    assert (line["symbol"], line["reason"], line["rank"]) == (SYMBOLS[40], "new listing", 41)
    assert line["distance_to_entry"] == pytest.approx(line["entry_score"] - line["current_score"])
    assert (line["is_member"], line["refused_because"]) == (False, "low_score")
    assert (await send(client, "DELETE", path))[0] == 200
    assert (await send(client, "GET", "/watch-list"))[1]["symbols"] == []
    status, wrong = await send(client, "PUT", path, kind="maybe", reason="x")
    assert (status, wrong["code"]) == (422, "validation_failed")


async def test_methods_and_lots(client: httpx2.AsyncClient) -> None:
    status, made = await send(client, "POST", "/optimize-weights", method="equal")
    assert status == 200
    assert {one["proposed_percentage"] for one in made["weights"]} == {10}
    assert made["risk_after"] > 0
    status, tree = await send(client, "POST", "/optimize-weights", method="hrp")
    assert status == 200
    shares = [one["proposed_percentage"] for one in tree["weights"]]
    assert len(set(shares)) > 1
    assert 5 <= min(shares) < max(shares) <= 20
    assert sum(shares) + tree["cash_percentage"] == pytest.approx(100)
    assert (await send(client, "POST", "/optimize-weights", method="best"))[0] == 422
    status, dry = await send(client, "POST", "/rebalance", dry_run=True, method="hrp")
    assert status == 200
    proposed = {one["symbol"]: one["proposed_percentage"] for one in tree["weights"]}
    assert {one["symbol"]: one["new"] for one in dry["changes"]} == proposed
    asked = {"dry_run": True, "method": "risk_parity", "account_balance": 1000}
    status, plan = await send(client, "POST", "/rebalance", **asked)
    assert status == 200
    assert set(plan["lots"]["lots"]) == set(SYMBOLS[:10])
    assert Decimal(plan["lots"]["minimum_capital"]) == 50
    assert plan["cost_includes_impact"] is True  # the books of all are known
    _, shown = await send(client, "GET", "/weights")
    line = shown["weights"][0]
    assert line["current_weight_percentage"] == line["weight_percentage"]
