"""Delay and cost of the event stream with two hundred clients, twenty of which read nothing.

Clients run in a process of their own, on sockets of the loopback interface.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles

import structlog
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import connect

from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.portfolio.domain.events import PlanCreated
from benchmarks.result_table import Row, note
from tests.support.streaming import masked, served
from tests.support.trading_desk import NOW

CLIENTS, STUCK, EVENTS, PER_SECOND = 200, 20, 400, 20
PAGE = os.sysconf("SC_PAGE_SIZE")
FILLER = "x" * 4_000  # an event as large as settings, so that who reads nothing is noticed


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * PAGE / 2**20


async def read(address: str, count: int) -> list[float]:
    """Milliseconds between the commit and the arrival of each event, over all clients."""
    late: list[float] = []

    async def one() -> None:
        async with connect(f"ws://{address}/stream", compression=None) as connection:
            await connection.send('{"type":"subscribe","topics":["rebalance"]}')
            seen = 0
            while seen < EVENTS:
                message = json.loads(await connection.recv())
                if message["type"] == "event":
                    seen += 1
                    sent = float(message["data"]["run_id"].partition(":")[0])
                    late.append((time.time() - sent) * 1e3)  # noqa: TID251  # the same machine's clock

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(one())
    return late


async def bench() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as room:
        url = f"sqlite+aiosqlite:///{room}/stream.sqlite3"
        await migrations.upgrade(url)
        database = Database(DatabaseOptions(url=url), time.monotonic, lambda: 0.5, encode_event)
        await database.open()
        async with served(database) as opened:
            desk, loop = opened.desk, asyncio.get_running_loop()
            message = json.dumps({"type": "subscribe", "topics": ["rebalance"] * 20})
            stuck = [await opened.stuck("/stream") for _ in range(STUCK)]
            for one in stuck:
                await loop.sock_sendall(one, masked(message))
            reader = await asyncio.create_subprocess_exec(  # a bench has no supervisor
                sys.executable, "-m", "benchmarks.stream", opened.address,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            readers = desk.stream._readers  # noqa: SLF001  # a bench looks inside
            await desk.until(lambda: sum(bool(one.topics) for one in readers) == CLIENTS)
            before, begun = resident_mib(), time.process_time()
            for _ in range(EVENTS):
                async with database.write() as unit:
                    unit.publish_after_commit(PlanCreated(f"{time.time()}:{FILLER}", 1, 0, NOW))  # noqa: TID251  # as above
                await asyncio.sleep(1 / PER_SECOND)
            said, _ = await reader.communicate()
            cpu, after = time.process_time() - begun, resident_mib()
            late = sorted(json.loads(said))
            evicted = desk.metric("stream_evictions_total", transport="websocket")
            for one in stuck:
                one.close()
        await database.close()
    table = Table("stream", "value")
    cuts = quantiles(late, n=100)
    table.add_row("clients, of them stuck", f"{CLIENTS}, {STUCK}")
    table.add_row("deliveries", f"{len(late)}")
    table.add_row("p50 / p99 / worst ms", f"{cuts[49]:.1f} / {cuts[98]:.1f} / {late[-1]:.1f}")
    table.add_row("stuck ones sent away", f"{evicted:.0f}")
    table.add_row("resident MiB before / after", f"{before:.0f} / {after:.0f}")
    table.add_row("server CPU s", f"{cpu:.1f}")
    Console().print(table)
    note(Row(f"stream, {CLIENTS} clients: p99 after the commit", f"{cuts[98]:.1f} ms"))


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(read(sys.argv[1], CLIENTS - STUCK))))  # noqa: T201  # for the parent
    else:
        asyncio.run(bench())


if __name__ == "__main__":
    main()
