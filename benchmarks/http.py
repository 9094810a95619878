"""Latency at 200 reads and 10 writes a second while the universe is scored every two seconds.

Exchange, service, peer and load are processes of their own on this machine. The peer is a bare
FastAPI handler that returns bodies of the same lengths to the same clients in the same run. Prints
the percentiles beside the goals, asserts nothing.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.cli.programs.sandbox import ExchangeOptions, run_exchange
from benchmarks.http_load import Make, Pace, Run, Taken, flat_out, once, paced, request
from benchmarks.http_plan import (
    GOAL_MS,
    MEMORY,
    PREFIX,
    SCORING,
    SQL,
    WRITE,
    Question,
    booking,
    in_turns,
    mixed,
    questions,
    scoring,
    switching,
)
from benchmarks.result_table import Row, note

SECONDS = float(os.environ.get("MYBENCH_SECONDS", "10"))
RUNS = int(os.environ.get("MYBENCH_RUNS", "3"))
CLIENTS = int(os.environ.get("MYBENCH_CLIENTS", "20"))  # 200 requests a second
READERS = Pace(CLIENTS, 10.0, SECONDS)
WRITERS = Pace(10, 1.0, SECONDS)  # every second of them books, the others switch
SCORER = Pace(1, 0.5, SECONDS)  # a scoring run every two seconds, more than a service ever has
FLAT_OUT_S = 3.0
START_S = 180.0


@contextmanager
def process(arguments: list[str], **variables: str) -> Iterator[int]:
    """Child process that ends with this one; gives its process id."""
    child = subprocess.Popen(  # noqa: S603  # our own interpreter and modules
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield child.pid
    finally:
        child.terminate()
        child.wait()


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return int(taken.getsockname()[1])


async def until_up(url: str, path: str) -> None:
    async with asyncio.timeout(START_S):
        while True:
            try:
                status, _, _ = await once(url, request("GET", path))
            except OSError:
                status = 0
            if status == 200:
                return
            await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Server:
    """One process with one event loop: uvicorn with one worker."""

    url: str
    pid: int

    def processor_s(self) -> float | None:
        """Processor time that it has used; None where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def service(room: Path) -> AsyncIterator[Server]:
    """The service on a whole market of its own, with ten members."""
    port = free_port()
    choice = ExchangeOptions(7, 100_000, None, None, None)
    with (
        run_exchange(choice) as exchange,
        process(
            ["-m", "app.cli", "serve", "--port", str(port)],
            MYSYMBOLS_KUCOIN__BASE_URL=exchange,
            MYSYMBOLS_KUCOIN__SOURCE="sandbox",
            MYSYMBOLS_DATABASE__URL=f"sqlite+aiosqlite:///{room}/bench.sqlite3",
            MYSYMBOLS_LOG__LEVEL="warning",
            MYSYMBOLS_LIMITS__OPEN_MODE_PER_S="1000000",
        ) as pid,
    ):
        url = f"http://127.0.0.1:{port}"
        await until_up(url, "/livez")
        async with asyncio.timeout(START_S):
            # Another process becomes ready: there is nothing here that could be waited for.
            while (await document(url, "/status"))["feed"]["stage"] != "complete":  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await sent(url, "/scoring/calculate", {})
        await sent(url, "/portfolio/initialize", {})
        yield Server(url, pid)


@asynccontextmanager
async def peer() -> AsyncIterator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process(["-m", "benchmarks.http_peer", str(port)]) as pid:
        await until_up(url, "/0")
        yield Server(url, pid)


async def document(url: str, path: str) -> Any:
    _, body, _ = await once(url, request("GET", PREFIX + path))
    return json.loads(body)


async def sent(url: str, path: str, body: dict[str, Any]) -> None:
    message = request("POST", PREFIX + path, body=json.dumps(body).encode())
    status, answer, _ = await once(url, message)
    if status not in {200, 201}:
        raise SystemExit(f"POST {path} was refused: {answer.decode()}")


@dataclass(frozen=True)
class Turn:
    """One run of the service with the peer's right before it."""

    load: float  # of the machine before: who else wanted a processor
    ours: Run
    bare: Run
    cost_ms: float | None  # processor time of the service per answer
    bare_cost_ms: float | None


async def turned(server: Server, other: Server, asks: list[Question], member: str) -> Turn:
    messages = [one.message for one in asks]
    sizes = [len((await once(server.url, message))[1]) for message in messages]
    bare_mix = mixed(asks, [request("GET", f"/{size}") for size in sizes])
    load = os.getloadavg()[0]
    bare, bare_cost = await costed(other, (bare_mix, READERS))
    reads = (mixed(asks, messages), READERS)
    writes = (in_turns(booking(member), switching()), WRITERS)
    ours, cost = await costed(server, reads, writes, (scoring(), SCORER))
    return Turn(load, ours, bare, cost, bare_cost)


async def costed(server: Server, *loads: tuple[Make, Pace]) -> tuple[Run, float | None]:
    before = server.processor_s()
    run = await paced(server.url, *loads)
    after = server.processor_s()
    spent = None if before is None or after is None else (after - before) * 1e3 / run.answers
    return run, spent


def kinds(asks: list[Question], run: Run) -> dict[str, Taken]:
    """All reads from memory, all with SQL, and all writes."""
    known = {one.name: one.kind for one in asks} | {SCORING: SCORING}
    return {
        kind: run.of([name for name in run.named if known.get(name, WRITE) == kind])
        for kind in (MEMORY, SQL, WRITE)
    }


def table(asks: list[Question], turn: Turn) -> Table:
    made = Table(
        "asked",
        "kind",
        "answers",
        "statuses",
        "bytes",
        "p50 ms",
        "p99 ms",
        "max ms",
        "peer p99",
        "ratio",
    )
    known = {one.name: one.kind for one in asks}
    for name, taken in turn.ours.named.items():
        bare = turn.bare.named.get(name)
        statuses = ", ".join(f"{code}: {count}" for code, count in sorted(taken.statuses.items()))
        figures = [f"{taken.share(part):.1f}" for part in (0.5, 0.99, 1.0)]
        beside = ["", ""]
        if bare is not None:
            beside = [f"{bare.share(0.99):.1f}", f"{taken.share(0.99) / bare.share(0.99):.1f}"]
        made.add_row(
            name,
            known.get(name, WRITE),
            str(len(taken.ms)),
            statuses,
            str(taken.size),
            *figures,
            *beside,
        )
    return made


def line(asks: list[Question], turn: Turn) -> str:
    tails = ", ".join(
        f"{kind} {taken.share(0.99):.1f}" for kind, taken in kinds(asks, turn.ours).items()
    )
    bare = turn.bare.of(list(turn.bare.named)).share(0.99)
    return (
        f"load {turn.load:.1f}: {turn.ours.rate:.0f} answers/s, {turn.ours.unsent} unsent,"
        f" p99 ms: {tails}, peer {bare:.1f};"
        f" processor ms per answer: {spelled(turn.cost_ms)}, peer {spelled(turn.bare_cost_ms)},"
        f" load {turn.ours.own_share:.2f} of a processor"
    )


def spelled(cost_ms: float | None) -> str:
    return "not known" if cost_ms is None else f"{cost_ms:.2f}"


async def measure(console: Console) -> None:
    with tempfile.TemporaryDirectory() as room:
        async with service(Path(room)) as server, peer() as other:
            member = (await document(server.url, "/portfolio"))["members"][0]["symbol"]
            rankings = request("GET", f"{PREFIX}/scoring/rankings")
            _, _, headers = await once(server.url, rankings)
            asks = questions(member, headers["etag"])
            for one in asks:
                status, body, _ = await once(server.url, one.message)
                if status not in {200, 304}:
                    raise SystemExit(f"GET {one.path}: {status} {body.decode()}")
            console.print(
                f"{READERS.connections} clients, {READERS.per_second:.0f} requests/s each, and"
                f" {WRITERS.connections} writes/s, {SCORER.per_second:g} scoring runs/s;"
                f" one uvicorn worker,"
                f" {os.cpu_count()} processors for service, load, peer and exchange"
            )
            turns = []
            for _ in range(RUNS):
                turns.append(await turned(server, other, asks, member))
                console.print(line(asks, turns[-1]))
            best = min(turns, key=lambda turn: kinds(asks, turn.ours)[MEMORY].share(0.99))
            console.print(table(asks, best))
            for kind, taken in kinds(asks, best.ours).items():
                met = taken.share(0.99) < GOAL_MS[kind] and not best.ours.unsent
                said = "met" if met else "NOT met"
                p99 = f"{taken.share(0.99):.1f} ms"
                note(
                    Row(
                        f"HTTP, {kind}: p99",
                        p99,
                        "",
                        "",
                        f"< {GOAL_MS[kind]:.0f} ms, none unsent",
                        met,
                    )
                )
                console.print(
                    f"{kind}: p99 {taken.share(0.99):.1f} ms, goal {GOAL_MS[kind]:.0f}: {said}"
                )
            most = await flat_out(
                server.url, mixed(asks, [one.message for one in asks]), 20, FLAT_OUT_S
            )
            console.print(f"as many as it can: {most.rate:.0f} answers/s of this mix")
            note(Row("HTTP, answers a second of the mix, flat out", f"{most.rate:.0f}"))


def main() -> None:
    """Measures MYBENCH_RUNS (3) times for MYBENCH_SECONDS (10) with MYBENCH_CLIENTS (20); shows
    the best in full.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the children end with us
    asyncio.run(measure(Console(width=150)))


if __name__ == "__main__":
    main()
