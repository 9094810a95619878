"""Registry and market data over a real socket to the local exchange, with time moved by hand."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

import aiohttp

from app.adapters.kucoin.exchange import KucoinExchange, open_exchange
from app.adapters.kucoin.limiter import KucoinLimits
from app.configuration.domain.model import Configuration
from app.foundation.data_status import DataSource
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.market.services.feed_leader import Fence, no_fencing
from app.market.services.service import MarketData
from app.market.services.symbol_registry import Registry, shipped_sectors
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange

START = 1_795_000_000.0  # 2026-11-18T11:06:40Z
PLENTY = 1_000_000
FAST = KucoinLimits(
    quota=PLENTY,
    connect_timeout_s=5.0,
    read_timeout_s=10.0,
    total_timeout_s=20.0,
    tries=1,
    backoff_first_s=0.001,
    backoff_cap_s=0.001,
)
CONTRACTS = "/api/v1/contracts/active"


@dataclass
class HandClock:
    """Wall and monotonic time that pass only when told; in sleep the wall's alone does."""

    passed_s: float = 0.0
    slept_s: float = 0.0

    def pass_(self, seconds: float) -> None:
        self.passed_s += seconds

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def wall(self) -> float:
        return START + self.passed_s + self.slept_s

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.wall(), UTC)

    def monotonic(self) -> float:
        return 500.0 + self.passed_s


@dataclass
class LiveMarket:
    """One local exchange with as many services in front of it as a test wants."""

    base_url: str
    exchange: KucoinExchange
    database: Database
    clock: HandClock
    control: aiohttp.ClientSession
    held: list[str] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: count(1))

    def registry(self) -> Registry:
        async def held() -> Sequence[str]:
            return self.held

        return Registry(
            exchange=self.exchange,
            database=self.database,
            sectors=shipped_sectors(),
            clock=self.clock.now,
            monotonic=self.clock.monotonic,
            new_id=lambda: str(UUID(int=next(self.numbers))),
            member_codes=held,
        )

    def market(
        self, configuration: Configuration | None = None, fence: Fence = no_fencing
    ) -> MarketData:
        settings = configuration or Configuration()
        return MarketData(
            exchange=self.exchange,
            database=self.database,
            registry=self.registry(),
            configuration=lambda: settings,
            clock=self.clock.now,
            monotonic=self.clock.monotonic,
            metrics=Metrics(),
            sleep=self._sleep,
            fence=fence,
        )

    async def _sleep(self, seconds: float) -> None:
        self.clock.pass_(seconds)
        await asyncio.sleep(0)

    async def post(self, path: str, body: Any = None) -> Any:
        async with self.control.post(f"{self.base_url}/_control/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def fault(self, kind: str, path: str = "*", **params: Any) -> None:
        await self.post("faults", {"kind": kind, "path": path, **params})

    async def heal(self) -> None:
        async with self.control.delete(f"{self.base_url}/_control/faults") as answer:
            assert answer.status == 200

    async def requests(self) -> dict[str, int]:
        async with self.control.get(f"{self.base_url}/_control/counters") as answer:
            counted: dict[str, int] = (await answer.json())["by_path"]
            return counted


@asynccontextmanager
async def open_market(database: Database, contracts: int | None = 24) -> AsyncIterator[LiveMarket]:
    clock = HandClock()
    options = SandboxOptions(quota=PLENTY, contracts=contracts)
    async with (
        serve_exchange(options, clock.wall) as base_url,
        open_exchange(
            base_url=base_url,
            source=DataSource.SANDBOX,
            now=clock.now,
            monotonic=clock.monotonic,
            sleep=asyncio.sleep,
            dice=random.Random(1),
            limits=FAST,
        ) as exchange,
        aiohttp.ClientSession() as control,
    ):
        yield LiveMarket(base_url, exchange, database, clock, control)
