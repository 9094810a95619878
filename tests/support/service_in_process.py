"""The whole service in process, put together as in production, with a client in front of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI

from app.container.application import request_state
from app.container.assembly import Services, assemble
from app.foundation.data_status import DataSource
from app.foundation.metrics import Metrics
from app.settings import (
    DatabaseVariables,
    JobVariables,
    KucoinVariables,
    LimitVariables,
    Settings,
)
from tests.support.harness import PREFIX, make_api_with, open_client

_MANY = 1_000_000
UNLIMITED = LimitVariables(  # tests ask faster than people and machines may
    requests_per_s=_MANY,
    changes_per_s=_MANY,
    signals_per_s=_MANY,
    heavy_per_min=_MANY,
    previews_per_min=_MANY,
    address_per_s=_MANY,
    open_mode_per_s=_MANY,
)
PATIENCE_S = 240.0  # passing tests do not wait; a busy machine may
_EMPTY: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Running:
    """A service that runs, and calls to it that must succeed."""

    # Spelling it out takes minutes, and a test that fails spells out all that it holds.
    services: Services = field(repr=False)
    client: httpx2.AsyncClient

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.client.get(PREFIX + path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Mapping[str, Any] = _EMPTY, status: int = 200) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            answer = await self.client.post(PREFIX + path, json=dict(body))
            # The schedule may be at work in this very moment: the contract is to come back.
            while answer.status_code == 409 and answer.json()["code"] == "rebalance_in_progress":
                await asyncio.sleep(0.1)
                answer = await self.client.post(PREFIX + path, json=dict(body))
        assert answer.status_code == status, answer.text
        return answer.json()

    async def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """Asks until the answer is as wanted; fails when that takes too long."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(answer := await self.get(path)):
                await asyncio.sleep(0.25)
        return answer

    async def filled(self) -> None:
        """Until the first fill has brought everything."""
        await self.until("/status", lambda status: status["feed"]["stage"] == "complete")


def settings_for(
    exchange_url: str, database_url: str, *, background: bool = True, **kucoin: Any
) -> Settings:
    # The exchange lives in the same loop: what holds it up is no failure of an exchange.
    patience = {"connect_timeout_s": 60.0, "read_timeout_s": 60.0, "total_timeout_s": 120.0}
    return Settings(
        kucoin=KucoinVariables(
            base_url=exchange_url, source=DataSource.SANDBOX, **{**patience, **kucoin}
        ),
        # A machine with other work needs patience: it is not what is tested here.
        database=DatabaseVariables(url=database_url, pool_wait_s=60.0),
        jobs=JobVariables(poll_s=0.1),
        limits=UNLIMITED,
        run_background_tasks=background,
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Starts the service with its background tasks and stops it again."""
    metrics = Metrics()
    started: list[Services] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with assemble(settings, metrics) as services:
            started.append(services)
            yield {**request_state(services.my_symbols), "mode": services.mode}

    async with open_client(make_api_with(lifespan, metrics=metrics)) as client:
        yield Running(started[0], client)
