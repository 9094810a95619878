"""A feed whose code is at fault: the whole service says so, and decides on nothing it has not."""

import asyncio
import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.container import assembly
from app.market.services.service import MarketData
from app.market.services.stream_consumer import StreamConsumer
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.harness import PREFIX
from tests.support.service_in_process import PATIENCE_S, running, settings_for

pytestmark = pytest.mark.long
QUICK: Mapping[str, Any] = {"intervals": {"market_s": 2}, "max_age_intervals": 3.0}


def fails(*_: object, **__: object) -> None:
    raise RuntimeError("a bug")


def failed(task: str) -> Any:
    """Of an answer of /health: whether that task is called failed."""

    def holds(health: Any) -> bool:
        (part,) = (one for one in health["components"] if one["name"] == f"task:{task}")
        return (part["state"], part["cause"]) == ("down", "task_failed")

    return holds


async def test_W15_who_fails_while_he_is_told_is_called_failed_and_the_market_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "full_jitter", lambda _: itertools.repeat(0.05))
    monkeypatch.setattr(StreamConsumer, "on_updates", fails)
    options = SandboxOptions(contracts=40, quota=1_000_000)
    async with serve_exchange(options, time.time) as url:
        settings = settings_for(url, f"sqlite+aiosqlite:///{tmp_path}/failed.sqlite3")
        async with running(settings) as service:
            await service.filled()
            health = await service.until("/health", failed("stream"))
            assert health["status"] == "down", "never running but dead"
            # It is asked for instead: true data, and decided upon.
            health = await service.until("/health", lambda one: one["mode"] != "FROZEN")
            assert failed("stream")(health)
            await service.post("/scoring/calculate")
            await service.post("/portfolio/initialize")
            answer = await service.client.get(f"{PREFIX}/portfolio")
            assert answer.headers["X-Service-Mode"] in {"NORMAL", "DEGRADED"}
            member = answer.json()["members"][0]["symbol"]

            put = await service.client.patch(f"{PREFIX}/configuration", json=QUICK)
            assert put.status_code == 200, put.text
            # Who asks is at fault now, too: what is known grows old, and nothing is decided.
            monkeypatch.setattr(MarketData, "refresh_tickers", fails)
            health = await service.until(
                "/health", lambda one: one["mode"] == "FROZEN" and failed("market")(one)
            )
            assert health["data_status"] == "stale"
            async with asyncio.timeout(PATIENCE_S):  # headers say what held within the second
                while answer.headers["X-Service-Mode"] != "FROZEN":
                    await asyncio.sleep(0.1)
                    answer = await service.client.post(f"{PREFIX}/portfolio/rebalance")
            assert answer.status_code == 503
            verdict = await service.get(f"/portfolio/symbols/{member}/should-trade")
            assert verdict["trade"] is False
