"""R09 of the whole service: an exchange that fails for minutes, over real sockets."""

import asyncio
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.adapters.kucoin.limiter import KucoinLimits
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX
from tests.support.problem_assertions import problem
from tests.support.service_in_process import PATIENCE_S, running, settings_for

pytestmark = pytest.mark.long
FAILS_FOR_S = 300.0
REFUSED_AFTER_S = 60.0  # the age limit of streamed quotes is 30 s; a busy machine may take longer
DEAD = (
    {"kind": "status", "path": "*", "status": 503},
    {"kind": "stream_half_open", "path": "*"},
)


async def test_R09_the_service_leaves_a_failing_exchange_alone_and_decides_nothing(
    tmp_path: Path,
) -> None:
    limits = KucoinLimits()
    options = SandboxOptions(contracts=40, quota=100_000)
    async with (
        serve_exchange(options, time.time) as url,
        aiohttp.ClientSession(f"{url}/_control/") as control,
        running(settings_for(url, f"sqlite+aiosqlite:///{tmp_path}/failing.sqlite3")) as service,
    ):

        async def arrivals() -> list[float]:
            async with control.get("counters") as answer:
                return [one["at"] for one in (await answer.json())["arrivals"]]

        async def mode_and_status() -> tuple[str, str]:
            """A read succeeds; its header, health and status say the same mode."""
            shown = await service.client.get(f"{PREFIX}/portfolio")
            health = await service.client.get(f"{PREFIX}/health")
            rankings = await service.client.get(f"{PREFIX}/scoring/rankings")
            assert (shown.status_code, rankings.status_code) == (200, 200)
            assert health.json()["mode"] == health.headers["X-Service-Mode"]
            return shown.headers["X-Service-Mode"], shown.json()["data_status"]

        async def until(wanted: tuple[str, str]) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while await mode_and_status() != wanted:
                    await asyncio.sleep(0.25)

        await service.filled()
        await service.post("/scoring/calculate")
        await service.post("/portfolio/initialize")
        member = (await service.get("/portfolio"))["members"][0]["symbol"]
        await until(("NORMAL", "fresh"))
        async with control.post("faults", json=list(DEAD)) as armed:
            assert armed.status == 200, await armed.text()
        before, begun = len(await arrivals()), time.monotonic()
        version = (await service.get("/portfolio"))["version"]

        modes: list[tuple[float, str]] = []
        while (passed_s := time.monotonic() - begun) < FAILS_FOR_S:
            modes.append((passed_s, (await mode_and_status())[0]))
            await asyncio.sleep(1.0)
        late = [mode for passed_s, mode in modes if passed_s > REFUSED_AFTER_S]
        assert set(late) == {"FROZEN"}, "once refused it stays refused until a fresh quote"

        calls = (await arrivals())[before:]
        assert len(calls) <= limits.breaker_consecutive + FAILS_FOR_S / limits.breaker_probe_s
        probes = calls[limits.breaker_consecutive :]
        assert len(probes) >= 0.6 * FAILS_FOR_S / limits.breaker_probe_s, "it is probed"
        assert all(two - one >= limits.breaker_probe_s - 1.0 for one, two in pairwise(probes))

        assert await mode_and_status() == ("FROZEN", "stale")
        refused = problem(await _rebalance(service.client), 503, "market_data_stale")
        assert refused["retry_after_s"] >= 1
        assert not (await service.get(f"/portfolio/symbols/{member}/should-trade"))["trade"]
        dry = await _rebalance(service.client, dry_run=True)
        assert (dry.status_code, dry.json()["would_be_refused"]["code"]) == (
            200,
            "market_data_stale",
        )
        assert (await service.get("/portfolio"))["version"] == version

        async with control.delete("faults") as healed:
            assert healed.status == 200
        await until(("NORMAL", "fresh"))
        assert (await service.post("/portfolio/rebalance"))["version"] >= version


async def _rebalance(client: Any, **body: Any) -> Any:
    asked: Mapping[str, Any] = body
    return await client.post(f"{PREFIX}/portfolio/rebalance", json=dict(asked))
