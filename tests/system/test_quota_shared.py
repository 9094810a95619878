"""R22: processes behind one address share its quota at the exchange by their heartbeats."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest

from app.adapters.kucoin.exchange import open_exchange
from app.adapters.kucoin.limiter import DEPTH100, KucoinLimits
from app.container.assembly import SharedQuota
from app.container.runtime_values import utc_now
from app.foundation.data_status import DataSource
from app.foundation.processes import ProcessRegistry
from app.foundation.sql.database import Database
from app.foundation.sql.processes import ProcessProfile
from app.market.services.ports import Exchange
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.service_in_process import PATIENCE_S, running, settings_for

QUOTA = 400
TICKER_WEIGHT = 2
WINDOW_S = 60
POOL = 0.8 * QUOTA
ROLES = ("all", "worker", "api")  # the last one never asks: it has no part


class NoOrphans:
    """Nobody judges who is dead here."""

    async def take_over(self, executor_id: str) -> bool:
        raise AssertionError(executor_id)

    async def executors(self) -> frozenset[str]:
        raise AssertionError


@asynccontextmanager
async def neighbour(
    database: Database, url: str, name: str, role: str
) -> AsyncIterator[tuple[ProcessRegistry, Exchange]]:
    """Another process as others see it: its heartbeats, and its way to the exchange."""
    registry = ProcessRegistry(
        database,
        NoOrphans(),
        name,
        time.monotonic,
        profile=ProcessProfile(role, "1"),
        takes_over=False,
    )
    await registry.send_heartbeat()

    async def beat() -> None:
        while True:
            await registry.send_heartbeat()
            await asyncio.sleep(1.0)

    async with open_exchange(
        base_url=url,
        source=DataSource.SANDBOX,
        now=utc_now,
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        dice=random.Random(1),
        limits=KucoinLimits(quota=QUOTA),
        share=SharedQuota(registry),
    ) as exchange:
        beating = asyncio.ensure_future(beat())
        try:
            yield registry, exchange
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await registry.leave()


async def used(exchange: str) -> int:
    """The weight of all requests of all processes, as the exchange counts it."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{exchange}/_control/counters") as answer,
    ):
        return int((await answer.json())["weight"])


async def limit(exchange: str) -> None:
    """One window for the whole test, however slow the machine is."""
    limits = {"quota": QUOTA, "window_s": WINDOW_S}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{exchange}/_control/limits", json=limits) as answer,
    ):
        assert answer.status == 200


async def ask(exchange: Exchange) -> None:
    """Far too many requests at once; those that have no room wait, and are given up."""
    asked = [asyncio.ensure_future(exchange.ticker("XBTUSDTM")) for _ in range(QUOTA)]
    before, done = -1, 0
    while done != before:  # until nothing more comes through
        await asyncio.wait(asked, timeout=1.5)
        before, done = done, sum(one.done() for one in asked)
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_R22_processes_use_four_fifths_of_the_quota_together_in_equal_parts(
    database: Database, database_url: str
) -> None:
    async with (
        serve_exchange(SandboxOptions(contracts=10, quota=QUOTA), time.time) as url,
        AsyncExitStack() as stack,
    ):
        await limit(url)
        leaving = await stack.enter_async_context(AsyncExitStack())
        others = [
            await leaving.enter_async_context(neighbour(database, url, f"p-{role}", role))
            for role in ROLES
        ]
        settings = settings_for(url, database_url, background=False, quota_per_window=QUOTA)
        service = await stack.enter_async_context(running(settings))
        whole, asking = service.services.my_symbols, [one for one, _ in others[:2]]
        await until(lambda: len(whole.status.processes()) == 4)
        await until(lambda: all(one.count_exchange_clients() == 3 for one in asking))
        assert await used(url) == 0
        market = whole.market
        books = market.books_per_s * market.quota_share() * KucoinLimits().window_s
        assert books * DEPTH100.weight == pytest.approx(POOL / 3 / 2), "half of its share"
        await ask(whole.market.exchange)
        assert POOL / 3 - TICKER_WEIGHT <= await used(url) <= POOL / 3
        await asyncio.gather(*(ask(exchange) for _, exchange in others[:2]))
        assert POOL - 3 * TICKER_WEIGHT <= await used(url) <= POOL
        await leaving.aclose()
        await until(lambda: len(whole.status.processes()) == 1)
