"""Alert clauses of the fault catalogue: the exchange misbehaves over sockets, GET /alerts says so.

Each test sees the alert come, sees how many there are, and sees it go when the cause ends.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from app.adapters.kucoin.limiter import KucoinLimits
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.settings import KucoinVariables
from tests.support.harness import PREFIX
from tests.support.service_in_process import PATIENCE_S, Running, running, settings_for

# One service and its exchange for all but one of the tests: each ends what it has begun.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("alerts")]
OPTIONS = SandboxOptions(contracts=40, quota=100_000)
CONTRACTS = "/api/v1/contracts/active"
TICKERS = "/api/v1/allTickers"


@dataclass(frozen=True)
class Scene:
    """A service that asks every second, and the exchange that it asks."""

    service: Running
    url: str

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self.url}/_control{path}", json=body) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def arm(self, kind: str, **fault: Any) -> None:
        await self.control("POST", "/faults", {"kind": kind, **fault})

    async def disarm(self) -> None:
        await self.control("DELETE", "/faults")

    async def alerts(self, rule: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.service.get("/alerts", rule=rule, limit=500))[
            "items"
        ]
        return found

    async def raised(self, rule: str) -> list[dict[str, Any]]:
        """The alerts of the rule, once there are any."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await self.alerts(rule)):
                await asyncio.sleep(0.1)
        return found

    async def gone(self, rule: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.alerts(rule):
                await asyncio.sleep(0.1)

    async def wait(self, rule: str, subject: str, *, there: bool) -> list[dict[str, Any]]:
        """The alerts of a rule about a subject, once there is one or none."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = [one for one in await self.alerts(rule) if one["subject"] == subject]
                if bool(found) is there:
                    return found
                await asyncio.sleep(0.1)

    async def settle(self, **settings: Any) -> None:
        put = await self.service.client.patch(f"{PREFIX}/configuration", json=settings)
        assert put.status_code == 200, put.text


@asynccontextmanager
async def scene(path: Path, **kucoin: Any) -> AsyncIterator[Scene]:
    """Filled, without an alert of the exchange or the service; the market is asked each second."""
    async with serve_exchange(OPTIONS, time.time) as url:
        settings = settings_for(url, f"sqlite+aiosqlite:///{path}/alerts.sqlite3", **kucoin)
        async with running(settings) as service:
            await service.filled()
            made = Scene(service, url)
            # Late or stale is nothing here: the cause of each alert is the fault alone.
            await made.settle(intervals={"market_s": 1}, max_age_intervals=100)
            assert (await service.get("/alerts"))["items"] == []
            yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(tmp_path_factory.mktemp("alerts")) as made:
        yield made


async def test_R04_a_ban_is_exactly_one_critical_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = KucoinLimits(quota=100_000, ban_first_s=3.0, patience_s=3.0)
    monkeypatch.setattr(KucoinVariables, "limits", property(lambda _: short))
    async with scene(tmp_path) as here:
        await here.arm("cloudflare")
        # Many ask at once, through different endpoints; each is refused or meets the page.
        market = here.service.services.my_symbols.market
        asked = await asyncio.gather(
            *(market.exchange.book(entry.contract.code) for entry in market.eligible()),
            market.refresh_market(),
            market.sync_contracts(),
            return_exceptions=True,
        )
        assert {str(getattr(one, "code", one)) for one in asked} == {"exchange_banned"}
        banned = await here.raised("exchange_banned")
        answer = await here.service.client.post(f"{PREFIX}/symbols/sync")
        assert (answer.status_code, answer.json()["code"]) == (503, "exchange_banned")
        critical = (await here.service.get("/alerts", severity="critical"))["items"]
        assert [one["rule"] for one in critical] == ["exchange_banned"]
        assert [one["id"] for one in critical] == [one["id"] for one in banned]
        assert await here.alerts("exchange_disconnected") == []
        await here.disarm()
        await here.gone("exchange_banned")


async def test_R11_a_list_that_lost_too_much_is_an_alert_until_it_is_whole(here: Scene) -> None:
    before = await here.service.get("/symbols", limit=500)
    await here.arm("vanish", path=CONTRACTS, share=0.5)
    (anomaly,) = await here.raised("universe_anomaly")
    assert "20 of 40 contracts vanished at once" in anomaly["message"]
    assert anomaly["severity"] == "warning"
    now = await here.service.get("/symbols", limit=500)
    assert [one["symbol"] for one in now["items"]] == [one["symbol"] for one in before["items"]], (
        "nothing is evicted"
    )
    await here.disarm()
    await here.gone("universe_anomaly")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": True}, "a truth value, not a number"),
        ({"value": "cheap"}, "not a number"),
        ({"remove": True}, "absent"),
    ],
)
async def test_R13_a_field_that_changed_is_an_alert_that_names_it(
    here: Scene, change: dict[str, Any], reason: str
) -> None:
    await here.arm("malformed", path=CONTRACTS, symbol="XBTUSDTM", field="tickSize", **change)
    (drift,) = await here.raised("schema_drift")
    assert drift["subject"] == f"{CONTRACTS}:tickSize"
    assert (drift["symbols"], drift["value"]) == (["BTCUSDT"], 1.0)
    assert f"tickSize ({reason}): BTCUSDT" in drift["message"]
    metrics = (await here.service.client.get("/metrics")).text
    assert f'rejected_records_total{{endpoint="{CONTRACTS}",field="tickSize"}}' in metrics
    await here.disarm()
    await here.gone("schema_drift")


async def test_R13_one_changed_field_of_all_records_is_one_alert(here: Scene) -> None:
    await here.arm("malformed", path=TICKERS, field="price", value=False)
    (drift,) = await here.raised("schema_drift")
    assert drift["value"] == 40.0
    assert len(drift["symbols"]) == 40
    await here.disarm()
    await here.gone("schema_drift")


async def test_R13_an_answer_about_one_symbol_that_makes_no_sense(here: Scene) -> None:
    market = here.service.services.my_symbols.market
    entry = market.resolve("BTCUSDT")
    await here.arm("malformed", path="/api/v1/level2/*", field="bids", value="none")
    await market.fetch.books([entry])
    (drift,) = await here.raised("schema_drift")
    assert drift["symbols"] == ["BTCUSDT"]
    await here.disarm()
    await market.fetch.books([entry])
    assert await here.alerts("schema_drift") == []


async def test_R14_an_unknown_contract_status_is_an_alert_and_no_trade(here: Scene) -> None:
    await here.arm("contract_status", symbol="XBTUSDTM", status="Foo", listed=True)
    (odd,) = await here.raised("unknown_contract_status")
    assert odd["symbols"] == ["BTCUSDT"]
    verdict = await here.service.get("/portfolio/symbols/BTCUSDT/should-trade")
    assert verdict["trade"] is False
    await here.disarm()
    await here.gone("unknown_contract_status")


async def test_R16_a_redirect_is_an_alert_and_never_followed(here: Scene) -> None:
    async with serve_exchange(OPTIONS, time.time) as elsewhere:
        await here.arm("redirect", path=CONTRACTS, location=elsewhere + CONTRACTS)
        (refused,) = await here.raised("redirect_refused")
        assert (refused["subject"], refused["severity"]) == (CONTRACTS, "critical")
        answer = await here.service.client.post(f"{PREFIX}/symbols/sync")
        assert answer.status_code in {502, 503}, answer.text  # 503 once the breaker is open
        counted = await Scene(here.service, elsewhere).control("GET", "/counters")
        assert counted["total"] == 0
        await here.disarm()
        await here.gone("redirect_refused")
