"""Probes, health and status over HTTP, on the real status service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import httpx2
import pytest

from app.alerts.services.monitor import AlertingHeartbeat
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.health import TaskFacts
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.market.domain.models import LinkState
from app.operations.services.health import StatusService
from app.workers.supervisor import MAX_CRASHES
from tests.operations.services.test_status import LINK, NOW, World
from tests.support.harness import PREFIX, make_api, open_client
from tests.support.problem_assertions import problem
from tests.workers.test_restart_limiter import Bench


@dataclass(frozen=True, slots=True)
class Face:
    """The part of the service that these routes use."""

    status: StatusService


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    async with open_client(make_api({"my_symbols": Face(world.status())})) as client:
        yield client


async def test_livez_depends_on_nothing() -> None:
    async with open_client(make_api({})) as client:
        response = await client.get("/livez")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_B01_readyz_follows_the_database() -> None:
    world = World()
    async with opened(world) as client:
        assert (await client.get("/readyz")).json()["state"] == "up"
        world.database_error = UnavailableError(Code.DATABASE_UNAVAILABLE, "host=db password=x")
        response = await client.get("/readyz")
        problem(response, 503, "database_unavailable")
        assert "password" not in response.text
        assert (await client.get("/livez")).status_code == 200
        world.database_error = None
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_U11_a_dead_alerting_path_is_in_health_and_in_the_metrics(database: Database) -> None:
    world, metrics = World(), Metrics()
    pulse = world.pulse = AlertingHeartbeat(
        database, lambda: world.now, metrics, lambda: 60.0, NOW, world.monotonic
    )
    api = make_api({"my_symbols": Face(world.status())}, metrics=metrics)
    async with open_client(api) as client:

        async def told() -> tuple[str, str | None, list[float]]:
            parts = (await client.get(f"{PREFIX}/health")).json()["components"]
            part = next(one for one in parts if one["name"] == "alerting")
            lines = (await client.get("/metrics")).text.splitlines()
            ages = [one for one in lines if one.startswith("mysymbols_alerting_silence_seconds{")]
            return part["state"], part["cause"], [float(one.split()[-1]) for one in ages]

        await pulse.evaluated()
        await pulse.delivered()
        assert await told() == ("up", None, [0.0, 0.0])
        world.now = NOW + timedelta(seconds=120)
        await pulse.evaluated()
        assert (await told())[0] == "up"
        world.now = NOW + timedelta(seconds=121)
        assert await told() == ("down", "alerting_silent", [1.0, 121.0])
        await pulse.delivered()
        assert await told() == ("up", None, [1.0, 0.0])


async def test_W15_a_stream_whose_listener_fails_is_down_for_every_client_until_it_runs() -> None:
    world, bench = World(), Bench()
    bench.supervisor.start("stream", bench.work, lambda: 60.0)
    async with opened(world) as client:

        async def told() -> tuple[str, dict[str, str], dict[str, object]]:
            world.tasks = bench.supervisor.facts()
            health = (await client.get(f"{PREFIX}/health")).json()
            part = next(one for one in health["components"] if one["name"] == "task:stream")
            (task,) = (await client.get(f"{PREFIX}/status")).json()["tasks"]
            return health["status"], part, task

        await bench.until_it_rests()
        overall, part, task = await told()
        assert overall == part["state"] == "down"
        assert part["cause"] == "task_failed"
        assert part["detail"] == f"KeyError, after {1 + MAX_CRASHES} crashes"
        assert part["next_step"].startswith("restarts at ")
        assert (task["running"], task["last_error"]) == (True, "KeyError")
        assert (await client.get("/livez")).status_code == 200, "no reason to kill the process"
        bench.broken = None
        bench.rested.set()
        while len(bench.begun) < 2 + MAX_CRASHES:
            await asyncio.sleep(0)
        overall, part, task = await told()
        assert overall == part["state"] == "up"
    await bench.supervisor.stop()


async def test_health_names_cause_and_next_step() -> None:
    world = World()
    world.link = replace(
        LINK, state=LinkState.DOWN, cause="exchange_timeout", detail="no answer", retry_in_s=3.0
    )
    world.market = replace(world.market, data_status=DataStatus.UNAVAILABLE, as_of=None)
    async with opened(world) as client:
        response = await client.get(f"{PREFIX}/health")
    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["mode"]) == ("down", "FROZEN")
    assert (body["as_of"], body["data_source"], body["data_status"]) == (
        None,
        "sandbox",
        "unavailable",
    )
    exchange = next(part for part in body["components"] if part["name"] == "exchange")
    assert exchange == {
        "name": "exchange",
        "state": "down",
        "since": "2026-01-02T03:04:00Z",
        "cause": "exchange_timeout",
        "detail": "no answer",
        "last_success_at": "2026-01-02T03:04:00Z",
        "next_step": "retries in 3 s",
    }


async def test_status_is_in_figures() -> None:
    world = World()
    world.market = replace(
        world.market, ages_s={"ticker": 1.5, "book": None, "funding": float("nan")}
    )
    world.tasks = (
        TaskFacts("scoring", running=True, last_success_at=NOW, last_error=None, failures=0),
    )
    async with opened(world) as client:
        body = (await client.get(f"{PREFIX}/status")).json()
        assert body["portfolio"] == {
            "version": 3,
            "size": 10,
            "max_size": 10,
            "cash_percentage": 0.0,
        }
        assert body["feed"]["ages_s"] == {"ticker": 1.5, "book": None, "funding": None}
        assert body["scoring"]["run_id"] == "run-1"
        assert body["signals"] == {
            "waiting": 2,
            "oldest_received_at": "2026-01-02T03:04:00Z",
            "failed": 1,
            "open_outcomes": 7,
        }
        assert body["tasks"][0]["last_success_at"] == "2026-01-02T03:04:00Z"
        assert body["started_at"] == "2026-01-02T03:04:00Z"
        world.board = None
        assert (await client.get(f"{PREFIX}/status")).json()["scoring"] is None


async def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.exchange_link_up.set(1)
    async with open_client(make_api({}, metrics=metrics)) as client:
        response = await client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "mysymbols_exchange_link_up 1.0" in response.text
