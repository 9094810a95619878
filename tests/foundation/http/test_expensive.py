"""Row E03: expensive requests run a few at a time; more are refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
import pytest
from fastapi.routing import APIRoute

from app.container.application import ROUTERS
from app.foundation.http.dependencies import EXPENSIVE, ExpensiveRequests, limit_expensive
from app.foundation.http.permissions import requires
from app.foundation.http.routing import api_router
from app.foundation.principals import Role
from tests.support.harness import PREFIX, make_api, open_client
from tests.support.problem_assertions import problem

LIMITS = ExpensiveRequests()
CALLS = 100


@dataclass
class Work:
    """Endpoint whose calls run until the gate opens."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    peak: int = 0

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx2.AsyncClient]:
        router = api_router("work")

        @router.get("/work", dependencies=EXPENSIVE)
        @requires(Role.VIEWER)
        async def work() -> int:
            self.running += 1
            self.peak = max(self.peak, self.running)
            try:
                await self.gate.wait()
            finally:
                self.running -= 1
            return 1

        @router.get("/cheap")
        @requires(Role.VIEWER)
        async def cheap() -> int:
            return self.running

        async with open_client(make_api(routers=[router])) as client:
            yield client


async def test_E03_a_hundred_expensive_calls_run_two_at_a_time_and_the_rest_is_refused() -> None:
    work = Work()
    async with work.client() as client:
        calls = [asyncio.create_task(client.get(f"{PREFIX}/work")) for _ in range(CALLS)]
        for _ in range(100 * CALLS):  # turns of the loop; a call needs some
            await asyncio.sleep(0)
        assert sum(call.done() for call in calls) == CALLS - LIMITS.running - LIMITS.waiting
        assert (await client.get(f"{PREFIX}/cheap")).json() == LIMITS.running
        work.gate.set()
        answers = await asyncio.gather(*calls)
        served = [one for one in answers if one.status_code == 200]
        assert len(served) == LIMITS.running + LIMITS.waiting
        assert work.peak == LIMITS.running
        for one in answers:
            if one not in served:
                problem(one, 503, "overloaded")
                assert int(one.headers["retry-after"]) >= 1
        assert (await client.get(f"{PREFIX}/work")).status_code == 200


async def test_E03_a_caller_that_leaves_gives_its_place_free() -> None:
    limits = ExpensiveRequests(running=1, waiting=1)
    await limits.acquire()
    leaving = asyncio.create_task(limits.acquire())
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    staying = asyncio.create_task(limits.acquire())
    await asyncio.sleep(0)
    limits.release()
    await staying


@pytest.mark.parametrize(
    "name",
    [
        "get_portfolio_correlation",
        "get_portfolio_analytics",
        "get_portfolio_metrics",
        "get_portfolio_report",
        "get_replacement_ledger",
        "get_performance_attribution",
        "get_equity_curve",
        "replay_scoring_run",
        "get_score_validation",
    ],
)
def test_E03_operations_that_compute_for_long_are_bounded(name: str) -> None:
    routes = [one for router in ROUTERS for one in router.routes if isinstance(one, APIRoute)]
    (route,) = [one for one in routes if one.name == name]
    assert limit_expensive in [one.call for one in route.dependant.dependencies]
