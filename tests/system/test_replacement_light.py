"""A contract ends at the exchange: its member is replaced, end to end over sockets."""

import time
from pathlib import Path
from typing import Any

import aiohttp

from app.market.services.backfill import first_fill
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.service_in_process import running, settings_for


async def arm(url: str, **fault: Any) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/_control/faults", json=fault) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def test_a_delisted_member_is_replaced(tmp_path: Path) -> None:
    options = SandboxOptions(contracts=80, quota=100_000)
    async with serve_exchange(options, time.time) as url:
        settings = settings_for(url, f"sqlite+aiosqlite:///{tmp_path}/delisting.sqlite3")
        async with running(settings) as service:
            await service.filled()
            await service.post("/scoring/calculate")
            await service.post("/portfolio/initialize")
            before = await service.get("/portfolio")
            gone = before["members"][1]
            faster = {"intervals": {"market_s": 1, "scoring_s": 2}, "max_age_intervals": 100}
            answer = await service.client.patch("/api/symbol-mgmt/configuration", json=faster)
            assert answer.status_code == 200, answer.text
            await arm(url, kind="contract_status", symbol=gone["contract"], status="Closed")
            after = await service.until(
                "/portfolio",
                lambda shown: gone["symbol"] not in {one["symbol"] for one in shown["members"]},
            )
            history = await service.get("/portfolio/history", action="REPLACE")
            integrity = await service.get("/portfolio/integrity")

    new = after["members"][1]
    assert after["size"] == before["size"]
    assert new["weight_percentage"] > 0
    event = history["items"][0]
    assert (event["symbol"], event["other_symbol"]) == (new["symbol"], gone["symbol"])
    assert event["actor"] == "schedule"
    assert event["reason"].startswith("the contract is ")
    assert integrity["ok"], integrity


async def test_funding_is_followed_where_a_symbol_has_left_the_funnel(tmp_path: Path) -> None:
    ahead_s = 0.0
    options = SandboxOptions(contracts=40, quota=100_000)
    async with serve_exchange(options, lambda: time.time() + ahead_s) as url:
        settings = settings_for(
            url, f"sqlite+aiosqlite:///{tmp_path}/funding.sqlite3", background=False
        )
        async with running(settings) as service:
            market = service.services.my_symbols.market
            await first_fill(market)
            await service.post("/scoring/calculate")
            members = (await service.post("/portfolio/initialize", {"size": 3}))["members"]
            rankings = (await service.get("/scoring/rankings", limit=20))["items"]
            held = {one["symbol"] for one in members}
            others = [one for one in rankings if one["symbol"] not in held]
            new, stranger = others[0]["symbol"], others[1]["symbol"]
            old = members[0]["symbol"]
            await service.post("/portfolio/replace-symbol", {"old_symbol": old, "new_symbol": new})
            declined = [old, new, members[1]["symbol"], stranger]
            codes = [market.resolve(symbol).contract.code for symbol in declined]
            async with aiohttp.ClientSession() as session:
                for code in codes:
                    poor = {"symbol": code, "volume_factor": 1e-6, "days": 3}
                    async with session.post(f"{url}/_control/market", json=poor) as answer:
                        assert answer.status == 200, await answer.text()
            before = {code: market.live.market.funding[code].value[-1] for code in codes}
            ahead_s = 26 * 3_600.0
            await market.refresh_market()
            await market.refresh_candles()
            assert not {*declined} & {one.symbol for one in market.eligible()}
            await market.refresh_funding()
            after = {code: market.live.market.funding[code].value[-1] for code in codes}
    *followed, left = codes
    assert all(after[code].settled_ms > before[code].settled_ms for code in followed)
    assert after[left] == before[left], "no decision and no figure rests on it"
