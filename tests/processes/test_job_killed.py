"""A service that is killed in the middle of a backfill, and the one that is started after it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.api.harness import PREFIX
from tests.cli.command import started

pytestmark = pytest.mark.long
PATIENCE_S = 120.0


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


@asynccontextmanager
async def service(room: Path, exchange: str, port: int) -> AsyncIterator[httpx2.AsyncClient]:
    """`my-symbols serve` as a process of its own; it is killed in the end, never asked to stop."""
    variables = {
        "MYSYMBOLS_DATABASE__URL": f"sqlite+aiosqlite:///{room}/killed.sqlite3",
        "MYSYMBOLS_KUCOIN__BASE_URL": exchange,
        "MYSYMBOLS_BACKGROUND": "false",
        "MYSYMBOLS_JOBS__POLL_S": "0.1",
    }
    child = await asyncio.to_thread(
        lambda: started("serve", "--port", str(port), cwd=room, **variables)
    )
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


async def job_of(client: httpx2.AsyncClient, job_id: str) -> Any:
    return (await client.get(f"{PREFIX}/jobs/{job_id}")).json()


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
