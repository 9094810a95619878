"""A contract ends at the exchange: its member is replaced, end to end over sockets."""

import time
from pathlib import Path
from typing import Any

import aiohttp

from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.running import running, settings_for


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
            answer = await service.client.put("/api/symbol-mgmt/configuration", json=faster)
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
