"""A service that ends in the middle of a backfill, and the one that is started after it."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest

from app.foundation.http.server import _GRACE_S
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.workers.durable import EngineOptions
from tests.cli.command import started
from tests.support import child_processes
from tests.support.harness import PREFIX

pytestmark = pytest.mark.long
PATIENCE_S = 240.0
WAITS_S = 60.0  # so long the exchange lets wait


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


@asynccontextmanager
async def service(
    room: Path, exchange: str, port: int, children: list[child_processes.Command] | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    """`my-symbols serve` as a process of its own; in the end it is killed, if it still runs.

    The process is added to `children`.
    """
    variables = {
        "MYSYMBOLS_DATABASE__URL": f"sqlite+aiosqlite:///{room}/killed.sqlite3",
        "MYSYMBOLS_KUCOIN__BASE_URL": exchange,
        "MYSYMBOLS_RUN_BACKGROUND_TASKS": "false",
        "MYSYMBOLS_JOBS__POLL_S": "0.1",
    }
    child = await asyncio.to_thread(
        lambda: started("serve", "--port", str(port), cwd=room, **variables)
    )
    if children is not None:
        children.append(child)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while True:
                try:
                    if (await client.get("/readyz")).status_code == 200:
                        break
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
            yield client
    finally:
        child.kill()
        await asyncio.to_thread(child.communicate, PATIENCE_S)


async def answers_for_ever(client: httpx2.AsyncClient) -> None:
    while True:
        await client.get("/readyz", headers={"Connection": "close"})


async def job_of(client: httpx2.AsyncClient, job_id: str) -> Any:
    return (await client.get(f"{PREFIX}/jobs/{job_id}")).json()


async def test_K15_asked_to_end_it_takes_on_nothing_and_leaves_what_runs_for_later(
    tmp_path: Path,
) -> None:
    options = SandboxOptions(quota=1_000_000, contracts=60)
    children: list[child_processes.Command] = []
    async with (
        serve_exchange(options, time.time) as exchange,
        aiohttp.ClientSession() as control,
        asyncio.timeout(PATIENCE_S),
    ):
        port = free_port()
        async with service(tmp_path, exchange, port, children) as client:
            # What runs does not end by itself: the exchange lets it wait.
            slow = {"kind": "delay", "path": "/api/v1/kline/query", "seconds": WAITS_S}
            async with control.post(f"{exchange}/_control/faults", json=slow) as armed:
                assert armed.status == 200
            begun = (await client.post(f"{PREFIX}/symbols/sync?history=true")).json()
            while (job := await job_of(client, begun["id"]))["progress"] < 0.3:
                await asyncio.sleep(0.01)
            assert job["state"] == "running"
            (child,) = children
            child.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            with pytest.raises(httpx2.TransportError):  # not ready: nobody is let in any more
                await answers_for_ever(client)
            said = await asyncio.to_thread(child.wait, PATIENCE_S)
            # It waited for nobody: on a machine without other work it takes what it may.
            assert (said, time.monotonic() - asked < WAITS_S) == (0, True)
            patience: dict[str, Any] = {one.name: one.default for one in fields(EngineOptions)}
            assert patience["drain_s"] + _GRACE_S <= 20
        async with control.delete(f"{exchange}/_control/faults") as healed:
            assert healed.status == 200
        async with service(tmp_path, exchange, port) as client:
            while (job := await job_of(client, begun["id"]))["state"] in {"queued", "running"}:
                await asyncio.sleep(0.05)
    assert (job["state"], job["result"]["listed"]) == ("done", 60), job


async def test_a_backfill_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    options = SandboxOptions(quota=1_000_000, contracts=60)
    async with serve_exchange(options, time.time) as exchange, asyncio.timeout(PATIENCE_S):
        port = free_port()
        async with service(tmp_path, exchange, port) as client:
            begun = (await client.post(f"{PREFIX}/symbols/sync?history=true")).json()
            while True:
                killed = await job_of(client, begun["id"])
                if killed["progress"] > 0.4:  # a third is the list of contracts
                    break
                await asyncio.sleep(0.01)
        assert killed["state"] == "running", "it was over before it could be killed"
        async with service(tmp_path, exchange, port) as client:
            while (job := await job_of(client, begun["id"]))["state"] in {"queued", "running"}:
                await asyncio.sleep(0.05)
    assert (job["state"], job["progress"]) == ("done", 1.0), job
    before, after = ({one["name"]: one for one in said["steps"]} for said in (killed, job))
    assert before["contracts"]["state"] == "done"
    assert after["contracts"] == before["contracts"], "what was done was done again"
    assert before["fill"]["state"] == "running"
    assert job["result"]["listed"] == 60
    assert job["result"]["scores_calculated"] >= 12
