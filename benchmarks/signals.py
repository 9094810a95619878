"""Signals at 50 a second for a minute, on a PostgreSQL that flushes each commit to the disk.

Each signal goes over the HTTP interface, in process, under an id of its own. All agents judge it
before the answer; the processor time is that of service and client together. Also measured: the
drain rate of a queue that filled without a board, and the answers of a full queue.
"""

import asyncio
import os
import statistics
import time
from collections import Counter
from random import Random  # noqa: TID251  # jitter of a bench
from typing import Any

import asyncpg
import httpx2
import structlog
from rich.console import Console
from rich.table import Table

from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.signals.api import routes as signals
from benchmarks.result_table import Row, note
from tests.support import postgres
from tests.support.harness import PREFIX, serve
from tests.support.signal_fixtures import informed
from tests.support.trading_desk import SYMBOLS, WHO, Desk

RATE = float(os.environ.get("BENCH_SIGNALS_RATE", "50"))  # a second
SECONDS = float(os.environ.get("BENCH_SIGNALS_SECONDS", "60"))
QUEUE = 1_000  # that many wait at most, in the second part
LATE_S = 1.0  # an answer later than that is none of the rate
DURABLE = ("fsync = on", "synchronous_commit = on", "full_page_writes = on", "autovacuum = on")
DICE = Random(1).random  # noqa: S311  # jitter of a bench


async def prepared(server: postgres.Server) -> str:
    """URL of a migrated database on a server with durable commits."""
    admin = await asyncpg.connect(host=str(server.room), user="postgres", database="postgres")
    for setting in DURABLE:
        await admin.execute(f"ALTER SYSTEM SET {setting}")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.execute("CREATE DATABASE bench")
    await admin.close()
    await migrations.upgrade(server.url("bench"))
    return server.url("bench")


def body(number: int) -> dict[str, Any]:
    return {
        "source_name": f"desk-{number % 5}",
        "source_signal_id": f"s-{number}",
        "signal_type": "momentum",
        "signal_strength": 0.8,
        "confidence_level": 0.9,
        "symbol": SYMBOLS[number % len(SYMBOLS)],
        "signal_direction": "BUY" if number % 3 else "SELL",
        "signal_data": {"number": number, "note": "x" * 200},
    }


async def paced(client: httpx2.AsyncClient, count: int) -> tuple[list[float], Counter[int]]:
    """Seconds from when each signal was due to its answer, and the answers by status."""
    took: list[float] = []
    answers: Counter[int] = Counter()
    begun = time.perf_counter()

    async def send(number: int) -> None:
        due = begun + number / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        answer = await client.post(f"{PREFIX}/signals", json=body(number))
        took.append(time.perf_counter() - due)
        answers[answer.status_code] += 1

    await asyncio.gather(*(send(number) for number in range(count)))
    return took, answers


async def overflowed(desk: Desk, client: httpx2.AsyncClient) -> tuple[Counter[int], str, float]:
    """Answers without a board, their Retry-After, and signals judged a second afterwards."""
    board, desk.boards.board = desk.boards.board, None
    await desk.configuration.put({"signals": {"max_pending": QUEUE}}, "a bench", WHO)
    answers: Counter[int] = Counter()
    retry = ""
    for number in range(QUEUE + 50):
        answer = await client.post(f"{PREFIX}/signals", json=body(1_000_000 + number))
        answers[answer.status_code] += 1
        retry = answer.headers.get("retry-after", retry)
    desk.boards.board = board
    begun = time.perf_counter()
    drained = await desk.signals.process_queue()
    return answers, retry, drained / (time.perf_counter() - begun)


async def bench(url: str) -> None:
    database = Database(
        DatabaseOptions(url=url), time.monotonic, DICE, encode_event, lambda _: None, lambda _: None
    )
    await database.open()
    desk = await Desk(database).open()
    informed(desk)
    count = int(RATE * SECONDS)
    async with serve([signals.router], {"my_symbols": desk}) as client:
        used = time.process_time()
        took, answers = await paced(client, count)
        used = time.process_time() - used
        kept = (await desk.signals.statistics(30)).counts
        full, retry, drained = await overflowed(desk, client)
    await database.close()
    cuts = statistics.quantiles(took, n=100)
    late = sum(one > LATE_S for one in took)
    table = Table("", "", title=f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    table.add_row("sent", f"{count} in {SECONDS:g} s, {RATE:g} a second")
    table.add_row("answered", ", ".join(f"{n} with {code}" for code, n in sorted(answers.items())))
    table.add_row("kept", f"{kept.total}, {kept.states}")
    table.add_row("answer after", f"{1e3 * cuts[49]:.0f} ms, p99 {1e3 * cuts[98]:.0f} ms")
    table.add_row("later than a second", f"{late} (goal 0)")
    table.add_row("processor time", f"{1e3 * used / count:.1f} ms a signal, client included")
    table.add_row("a full queue answers", f"{dict(full)}, Retry-After {retry} s")
    table.add_row("the queue drains at", f"{drained:.0f} a second")
    Console().print(table)
    taken = answers.get(201, 0)
    what, goal = f"signals taken of {count} at {RATE:g} a second", "all, none after a second"
    note(Row(what, f"{taken}, {late} late", goal=goal, met=taken == count and not late))


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors only
    server = postgres.server(f"bench-signals-{os.getpid()}")
    with server.link:
        asyncio.run(bench(asyncio.run(prepared(server))))


if __name__ == "__main__":
    main()
