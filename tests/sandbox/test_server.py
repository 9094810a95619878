"""Serving on loopback, several clients at once, and a clean stop."""

import asyncio
import time

import aiohttp
import pytest

from app.sandbox.options import SandboxOptions
from app.sandbox.server import create_exchange, serve_exchange
from tests.sandbox.conftest import START_MS

PATIENCE_S = 240.0


async def test_serve_gives_a_url_on_a_free_port_and_stops() -> None:
    options = SandboxOptions(contracts=12, now_ms=START_MS, speed=0.0)
    async with serve_exchange(options, time.time) as url, aiohttp.ClientSession(url) as session:
        assert url.startswith("http://127.0.0.1:")
        answers = await asyncio.gather(*(session.get("/api/v1/timestamp") for _ in range(20)))
        assert {(await answer.json())["data"] for answer in answers} == {START_MS}
        async with session.post("/_control/faults", json={"kind": "hang"}):
            pass
        hanging = asyncio.create_task(session.get("/api/v1/ticker"))
        async with asyncio.timeout(PATIENCE_S):
            while not await reached(session, "/api/v1/ticker"):
                await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_S):  # a hanging answer does not hold up the stop
        with pytest.raises(aiohttp.ClientError):
            await hanging
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


async def reached(session: aiohttp.ClientSession, path: str) -> bool:
    async with session.get("/_control/counters") as answer:
        return bool((await answer.json())["by_path"].get(path))


async def test_time_passes_at_the_wanted_speed() -> None:
    options, ticks = SandboxOptions(contracts=6, now_ms=START_MS, speed=3600.0), [1000.0]
    async with (
        serve_exchange(options, lambda: ticks[0]) as url,
        aiohttp.ClientSession(url) as session,
    ):
        moments = []
        for _ in range(2):
            async with session.get("/api/v1/timestamp") as answer:
                moments.append((await answer.json())["data"])
            ticks[0] += 0.5
    assert moments[1] - moments[0] == 1_800_000


def test_an_exchange_starts_now_without_a_given_time() -> None:
    app = create_exchange(SandboxOptions(contracts=6), lambda: 1_800_000_000.5)
    (exchange,) = (value for value in app.values() if hasattr(value, "market"))
    assert exchange.clock.now_ms() == 1_800_000_000_500
