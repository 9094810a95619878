"""Failover of the feed: kill -9 of its owner, with two processes on one PostgreSQL.

A whole market is streamed. Measured from the death: seconds until the other process owns the feed,
decides on fresh data, and has as many topics of the stream as the dead one, all live, and no stale
symbol. Prints one table, asserts nothing.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.table import Table

from benchmarks.result_table import Row, note
from tests.processes.fleet import Fleet, Replica, fleet, until

CONTRACTS = int(os.environ.get("MYBENCH_CONTRACTS", "500"))
ROUNDS = int(os.environ.get("MYBENCH_RUNS", "2"))
PATIENCE_S = 300.0
GOAL_S = 30.0


async def live_topics(running: Fleet, one: Replica) -> int:
    """Topics of the stream of a process; 0 unless all are live and no symbol is stale."""
    status = await running.get(one, "/status")
    stream = None if status is None else status["stream"]
    if stream is None or stream["mode"] != "stream" or status["feed"]["stale_symbols"]:
        return 0
    return int(stream["topics"]) if stream["active_topics"] == stream["topics"] else 0


async def failed_over(running: Fleet) -> dict[str, float]:
    """Seconds from the death of the owner; a new process takes the place of the dead one."""
    owner, (_, before, _) = await running.owner(), await running.lease()
    least = await until(lambda: live_topics(running, owner), PATIENCE_S)
    (other,) = [one for one in running.alive() if one is not owner]
    owner.signal(signal.SIGKILL)
    begun = time.monotonic()
    owner.process.wait()

    async def owned() -> bool:
        _, epoch, stands = await running.lease()
        return stands and epoch > before

    async def decided() -> bool:
        epoch, _, _ = await running.market()
        return epoch > before and await running.decides(other)

    async def seconds(question: Callable[[], Awaitable[bool]]) -> float:
        await until(question, PATIENCE_S)
        return time.monotonic() - begun

    async def streamed() -> bool:
        return await live_topics(running, other) >= least

    took = await asyncio.gather(seconds(owned), seconds(decided), seconds(streamed))
    running.launch("all")
    await running.ready()
    return dict(zip(("another process owns the feed", "it decides", GOAL), took, strict=True))


GOAL = "whole stream is fresh"


async def measure(console: Console) -> None:
    async with fleet(["all", "all"], CONTRACTS) as running:
        rounds = [await failed_over(running) for _ in range(ROUNDS)]
    title = f"kill -9 of the feed's owner, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    table = Table("seconds until", *(str(at + 1) for at in range(ROUNDS)), "goal", title=title)
    for name in rounds[0]:
        goal = f"<= {GOAL_S:.0f}" if name == GOAL else ""
        table.add_row(name, *(f"{one[name]:.1f}" for one in rounds), goal)
    console.print(table)
    worst = max(one[GOAL] for one in rounds)
    what = "kill -9 of the feed's owner: whole stream fresh"
    note(Row(what, f"{worst:.1f} s", goal=f"<= {GOAL_S:.0f} s", met=worst <= GOAL_S))


if __name__ == "__main__":
    asyncio.run(measure(Console(width=120)))
