"""How fast the service answers: 100 clients with 10 requests a second each, and 10 writes a second.

Exchange, service, peer and load are processes of their own on this machine. The peer is a bare
FastAPI handler that gives away bytes of the same length; what counts is the ratio to it in the
same run. Prints one table, asserts nothing.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.cli.neighbour import ExchangeChoice, exchange_beside
from benchmarks.http_load import Make, Taken, once, paced, request

PREFIX = "/api/symbol-mgmt"
CLIENTS, PER_SECOND = 100, 10.0
WRITERS, WRITES_PER_SECOND = 10, 1.0
SECONDS = float(os.environ.get("MYBENCH_SECONDS", "10"))
START_S = 180.0


@dataclass(frozen=True)
class Row:
    name: str
    path: str
    goal_ms: float
    headers: dict[str, str]


@contextmanager
def process(arguments: list[str], **variables: str) -> Iterator[None]:
    """A child of ours that ends with us."""
    child = subprocess.Popen(  # noqa: S603  # our own interpreter and modules
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
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


@asynccontextmanager
async def service(room: Path) -> AsyncIterator[str]:
    """The service on a whole market of its own, with ten members."""
    port = free_port()
    choice = ExchangeChoice(7, 100_000, None, None, None)
    with (
        exchange_beside(choice) as exchange,
        process(
            ["-m", "app.cli", "serve", "--port", str(port)],
            MYSYMBOLS_KUCOIN__BASE_URL=exchange,
            MYSYMBOLS_KUCOIN__SOURCE="sandbox",
            MYSYMBOLS_DATABASE__URL=f"sqlite+aiosqlite:///{room}/bench.sqlite3",
            MYSYMBOLS_LOG__LEVEL="warning",
        ),
    ):
        url = f"http://127.0.0.1:{port}"
        await until_up(url, "/livez")
        async with asyncio.timeout(START_S):
            # Another process becomes ready: there is nothing here that could be waited for.
            while (await document(url, "/status"))["feed"]["stage"] != "complete":  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await sent(url, "/scoring/calculate", {})
        await sent(url, "/portfolio/initialize", {})
        yield url


@asynccontextmanager
async def peer(size: int) -> AsyncIterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process(["-m", "benchmarks.http_peer", str(port), str(size)]):
        await until_up(url, "/")
        yield url


async def document(url: str, path: str) -> Any:
    _, body, _ = await once(url, request("GET", PREFIX + path))
    return json.loads(body)


async def sent(url: str, path: str, body: dict[str, Any]) -> None:
    status, answer, _ = await once(url, request("POST", PREFIX + path, body=as_json(body)))
    if status not in {200, 201}:
        raise SystemExit(f"POST {path} was refused: {answer.decode()}")


def as_json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


async def rows(url: str) -> list[Row]:
    """What is asked for; the board that a client holds already is one of it."""
    _, _, headers = await once(url, request("GET", f"{PREFIX}/scoring/rankings"))
    held = {"If-None-Match": headers["etag"]}
    members = (await document(url, "/portfolio"))["members"]
    symbol = members[0]["symbol"]
    return [
        Row("memory: rankings, 100 lines", "/scoring/rankings", 20, {}),
        Row("memory: rankings, held already", "/scoring/rankings", 20, held),
        Row("memory: explain one score", f"/scoring/symbol/{symbol}/explain", 20, {}),
        Row("memory: market of one symbol", f"/market/{symbol}", 20, {}),
        Row("SQL: portfolio", "/portfolio", 100, {}),
        Row("SQL: weights", "/portfolio/weights", 100, {}),
        Row("SQL: tradeable", "/portfolio/tradeable", 100, {}),
        Row("SQL: history, 50 events", "/portfolio/history", 100, {}),
    ]


def booking(symbol: str) -> Make:
    """A realised result under a key: claim, effect, event, answer."""
    moment = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime())

    def make(number: int, turn: int) -> bytes:
        name = f"bench-{number}-{turn}-{os.getpid()}"
        body = {"trade_id": name, "pnl": "1.5", "currency": "USDT", "occurred_at": moment}
        path = f"{PREFIX}/portfolio/symbols/{symbol}/performance"
        return request("POST", path, {"Idempotency-Key": name}, as_json(body))

    return make


def switching() -> Make:
    """Trading off and on again: one event of the history each."""

    def make(number: int, turn: int) -> bytes:
        body = {"enabled": (number + turn) % 2 == 0, "reason": "bench"}
        return request("PUT", f"{PREFIX}/portfolio/trading-switch", {}, as_json(body))

    return make


async def read(url: str, path: str, headers: dict[str, str]) -> Taken:
    message = request("GET", path, headers)
    return await paced(
        url, lambda *_: message, connections=CLIENTS, per_second=PER_SECOND, seconds=SECONDS
    )


def told(taken: Taken) -> list[str]:
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(taken.statuses.items()))
    figures = [taken.share(part) for part in (0.5, 0.99, 1.0)]
    rate = f"{taken.rate:.0f}" + (f", {taken.unsent} unsent" if taken.unsent else "")
    return [rate, statuses, str(taken.size), *(f"{one:.1f}" for one in figures)]


async def measure(table: Table) -> None:
    with tempfile.TemporaryDirectory() as room:
        async with service(Path(room)) as url:
            for row in await rows(url):
                path = PREFIX + row.path
                status, body, _ = await once(url, request("GET", path))
                if status != 200:
                    raise SystemExit(f"GET {row.path}: {status}")
                async with peer(0 if row.headers else len(body)) as other:
                    bare = await read(other, "/", {})
                ours = await read(url, path, row.headers)
                ratio = ours.share(0.99) / bare.share(0.99)
                table.add_row(
                    row.name,
                    *told(ours),
                    f"{row.goal_ms:.0f}",
                    f"{bare.share(0.99):.1f}",
                    f"{ratio:.1f}",
                )
            symbol = (await document(url, "/portfolio"))["members"][0]["symbol"]
            for name, make in (
                ("write: a booked result with a key", booking(symbol)),
                ("write: trading off and on", switching()),
            ):
                ours = await paced(
                    url,
                    make,
                    connections=WRITERS,
                    per_second=WRITES_PER_SECOND,
                    seconds=SECONDS,
                )
                table.add_row(name, *told(ours), "100", "", "")


def main() -> None:
    """Measures every row, each for MYBENCH_SECONDS (10)."""
    table = Table(
        f"{CLIENTS} clients, {PER_SECOND:.0f}/s each",
        "answers/s",
        "statuses",
        "bytes",
        "p50 ms",
        "p99 ms",
        "max ms",
        "goal p99",
        "peer p99",
        "ratio",
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the children end with us
    try:
        asyncio.run(measure(table))
    finally:
        Console(width=150).print(table)


if __name__ == "__main__":
    main()
