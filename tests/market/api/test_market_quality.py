"""The quality of data over HTTP: what a caller reads of a price that is not believed."""

import time
from typing import Any

import aiohttp
import pytest

from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX
from tests.support.service_in_process import running, settings_for

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
QUALITY = "/market/ETHUSDT/quality"
TICKERS, CONTRACTS = "/api/v1/allTickers", "/api/v1/contracts/active"


async def test_D02_a_price_in_quarantine_is_told_with_its_reason(database_url: str) -> None:
    options = SandboxOptions(quota=1_000_000, contracts=14)
    async with (
        serve_exchange(options, time.time) as url,
        running(settings_for(url, database_url, background=False)) as service,
        aiohttp.ClientSession() as control,
    ):
        market = service.services.my_symbols.market
        await market.refresh_market()
        calm = await service.get(QUALITY)
        assert calm["verdict"] == "flagged", "nothing but the listings was fetched"
        assert {"no_book", "daily_gaps", "hourly_gaps"} <= set(calm["flags"])
        assert 0.0 < calm["quality_score"] < 1.0
        parts = {one["name"]: one for one in calm["parts"]}
        assert calm["quality_score"] == pytest.approx(
            sum(one["score"] * one["weight"] for one in parts.values())
        )
        assert sum(one["weight"] for one in parts.values()) == pytest.approx(1.0)
        assert all(one["reason"] for one in parts.values())

        fault: dict[str, Any] = {"kind": "malformed", "symbol": "ETHUSDTM", "field": "price"}
        fault |= {"path": "/api/v1/allTickers", "value": "3200000.5"}
        async with control.post(f"{url}/_control/faults", json=fault) as done:
            assert done.status == 200
        await market.refresh_market()
        shown = await service.get(QUALITY)
        assert (shown["verdict"], shown["quality_score"]) == ("quarantined", 0.0)
        assert shown["flags"][0] == "last_off_mark"
        assert shown["quarantined_since"] is not None
        assert [one["verdict"] for one in shown["history"]] == ["quarantined", "flagged"]
        assert shown["next_cursor"] is None
        first = await service.get(QUALITY, limit=1)
        second = await service.get(QUALITY, limit=1, cursor=first["next_cursor"])
        assert [*first["history"], *second["history"]] == shown["history"]
        other = await service.get("/market/BTCUSDT/quality")
        assert (other["verdict"], other["quarantined_since"]) == ("flagged", None)

        asked = await service.client.post(
            f"{PREFIX}/market/ETHUSDT/quality/release", json={"reason": "looked at it"}
        )
        assert asked.status_code == 200
        assert asked.json()["was_quarantined"] is True
        await market.refresh_market()
        again = await service.get(QUALITY)
        assert again["verdict"] == "quarantined", "its prices contradict each other all the same"
        missing = await service.client.get(f"{PREFIX}/market/NOSUCH/quality")
        assert (missing.status_code, missing.json()["code"]) == (422, "symbol_unknown")


async def test_D01_D23_what_makes_no_sense_is_refused_counted_by_its_field_and_never_shown(
    database_url: str,
) -> None:
    options = SandboxOptions(quota=1_000_000, contracts=14)
    hostile, endless = "<script>alert(1)</script>", "A" * 1_000_000
    async with (
        serve_exchange(options, time.time) as url,
        running(settings_for(url, database_url, background=False)) as service,
        aiohttp.ClientSession() as control,
    ):
        market = service.services.my_symbols.market
        await market.refresh_market()
        good = await service.get("/market/ETHUSDT")
        for path, symbol, name, value in (
            (TICKERS, "ETHUSDTM", "price", "-3.5"),
            (CONTRACTS, "XRPUSDTM", "symbol", hostile),
            (CONTRACTS, "SOLUSDTM", "baseCurrency", endless),
            (TICKERS, "SOLUSDTM", "symbol", endless),
        ):
            fault = {"kind": "malformed", "path": path, "symbol": symbol}
            fault |= {"field": name, "value": value}
            async with control.post(f"{url}/_control/faults", json=fault) as done:
                assert done.status == 200
        await market.refresh_market()
        shown = await service.get("/market/ETHUSDT")
        assert shown["last_price"] == good["last_price"], "the last good one is kept"
        listed = (await service.client.get(f"{PREFIX}/symbols", params={"limit": 500})).text
        assert "script" not in listed
        assert "XRPUSDT" in listed, "known, and gone from the list for now"
        assert "BTCUSDT" in listed
        counted = (await service.client.get("/metrics")).text
        for where, name in (
            (TICKERS, "price"), (TICKERS, "symbol"),
            (CONTRACTS, "symbol"), (CONTRACTS, "baseCurrency"),
        ):  # fmt: skip
            line = f'rejected_records_total{{endpoint="{where}",field="{name}"}} 1.0'
            assert line in counted, [one for one in counted.splitlines() if "rejected" in one]
        asked = await service.client.get(f"{PREFIX}/symbols/{hostile}")
        assert hostile not in asked.text
        for told in (listed, counted, (await service.client.get(f"{PREFIX}/status")).text):
            assert endless[:100] not in told
        long = await service.client.get(f"{PREFIX}/symbols/{endless[:60_000]}")
        assert (long.status_code, long.json()["code"]) == (414, "uri_too_long")
        long = await service.client.post(
            f"{PREFIX}/symbols/validate", json={"symbols": [endless, "BTCUSDT"]}
        )
        assert (long.status_code, long.json()["code"]) == (413, "payload_too_large")
        assert endless[:100] not in long.text
