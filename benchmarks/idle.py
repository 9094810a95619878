"""Processor time at rest, the share of the job engine in it, and reads beside background jobs.

Market, database and portfolio are the same each time; once the engine polls as configured, once
only every minute. The difference is the cost of polling. The peer is a bare server.
"""

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.http import Server, document, peer, service
from benchmarks.http_load import Ask, Pace, Run, once, paced, request
from benchmarks.http_plan import PREFIX
from benchmarks.result_table import Row, note

SECONDS = float(os.environ.get("MYBENCH_SECONDS", "30"))
JOBS = int(os.environ.get("MYBENCH_JOBS", "60"))
LOOK = Pace(20, 5.0, min(SECONDS, 10.0))
SLOW = {"MYSYMBOLS_JOBS__POLL_S": "60"}
GOAL_MS = 50.0  # p99 of reads while jobs run


async def idle_s(server: Server) -> float:
    """Seconds of processor time a minute without requests."""
    before = server.processor_s()
    await asyncio.sleep(SECONDS)
    after = server.processor_s()
    if before is None or after is None:
        raise SystemExit("this system does not tell the processor time of a process")
    return (after - before) * 60.0 / SECONDS


async def backlog(server: Server) -> int:
    """Requests reports over many periods, each as a job; returns the number of accepted jobs."""
    begin, taken = datetime.now(UTC) - timedelta(days=1), 0  # noqa: TID251  # a bench has a clock
    for minute in range(JOBS):
        since = (begin + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")
        asked = request(
            "GET", f"{PREFIX}/portfolio/report?from={since}", {"Prefer": "respond-async"}
        )
        status, _, _ = await once(server.url, asked)
        taken += status == 202
    return taken


async def looks(server: Server, path: str) -> Run:
    ask = Ask(path, request("GET", path))
    return await paced(server.url, (lambda _connection, _turn: ask, LOOK))


def row(name: str, run: Run) -> tuple[str, str]:
    taken = run.of(list(run.named))
    shares = " / ".join(f"{taken.share(part):.1f}" for part in (0.5, 0.99, 1.0))
    return f"{name}: p50 / p99 / worst ms", f"{shares} ({run.unsent} unsent)"


async def idle_with(**variables: str) -> float:
    """`idle_s` of a new service with these variables."""
    os.environ.update(variables)
    try:
        with tempfile.TemporaryDirectory() as room:
            async with service(Path(room)) as server:
                return await idle_s(server)
    finally:
        for name in variables:
            del os.environ[name]


async def measure(console: Console) -> None:
    table = Table("", "", title=f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    async with AsyncExitStack() as stack:
        room = stack.enter_context(tempfile.TemporaryDirectory())
        ours = await stack.enter_async_context(service(Path(room)))
        other = await stack.enter_async_context(peer())
        usual, bare = await asyncio.gather(idle_s(ours), idle_s(other))
        rows = [row("peer", await looks(other, "/2000"))]
        rows.append(row("GET /portfolio, no job", await looks(ours, f"{PREFIX}/portfolio")))
        taken = await backlog(ours)
        beside = await looks(ours, f"{PREFIX}/portfolio")
        rows.append(row("GET /portfolio, jobs beside it", beside))
        waiting = (await document(ours.url, "/jobs?state=queued&limit=100"))["items"]
    seldom = await idle_with(**SLOW)
    table.add_row("idle service, processor s a minute", f"{usual:.2f}")
    table.add_row("the same, engine looks once a minute", f"{seldom:.2f}")
    table.add_row("idle peer, processor s a minute", f"{bare:.2f}")
    for one in rows:
        table.add_row(*one)
    table.add_row("jobs asked for, waiting still at the end", f"{taken}, {len(waiting)}")
    console.print(table)
    note(Row("idle, processor s a minute", f"{usual:.2f}", f"{bare:.2f}"))
    p99, is_whole = beside.of(list(beside.named)).share(0.99), not beside.unsent
    note(
        Row(
            f"reads beside {taken} background jobs: p99",
            f"{p99:.1f} ms",
            goal=f"< {GOAL_MS:.0f} ms, none unsent",
            met=p99 < GOAL_MS and is_whole and taken == JOBS,
        )
    )


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the children end with us
    asyncio.run(measure(Console(width=120)))


if __name__ == "__main__":
    main()
