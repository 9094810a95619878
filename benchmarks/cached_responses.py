"""Rankings and portfolio from the response cache, beside the same documents through a model.

The peer is the same route in the same application (its borders, counters and log lines, under the
same server), which makes its answer through the response model each time, with nothing behind it.
Beside the portfolio stand two more: FastAPI alone with the same model, and as the floor an
application of four lines that says the same bytes: what answering takes before anybody looks at
the request, or counts it. 100 connections ask one thing as
fast as they are answered; what counts is the processor time of the server per answer (without what
the service spends by itself), for the load generator is of Python too. Prints one table, asserts
nothing.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI
from rich.console import Console
from rich.table import Table
from starlette.types import Receive, Scope, Send

from app.container.application import create_api
from app.foundation.http.server import server_config
from app.foundation.metrics import Metrics
from app.portfolio.api.portfolio_routes import PortfolioOut
from app.scoring.api.schemas import RankingsOut
from app.telemetry.logging import configure_logging
from benchmarks.http import PREFIX, Server, free_port, process, service, until_up
from benchmarks.http_load import Ask, Pace, Run, flat_out, once, paced, request
from benchmarks.result_table import Row, note

CONNECTIONS, SECONDS = 100, float(os.environ.get("MYBENCH_SECONDS", "4"))
PACE = Pace(CONNECTIONS, 3.0, SECONDS)  # 300 requests a second, for the tail
ALONE, BARE = "alone", "bare"
RANKINGS, PORTFOLIO = "/scoring/rankings?limit=600", "/portfolio"


@dataclass(frozen=True)
class Case:
    name: str
    path: str
    headers: dict[str, str]
    goal: float  # times as many answers as the peer


@dataclass(frozen=True)
class Figures:
    """Of one case: answers a second and processor time of the server for each, p99 when paced."""

    rate: float
    cost_ms: float
    p99_ms: float
    size: int
    statuses: str


def give(folder: Path, port: int) -> None:
    """The peer: our application, which renders the same documents anew for every request."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        yield {}

    numbers = count(1)

    def new_id() -> str:
        return f"request-{next(numbers):08d}"

    api = create_api(
        lifespan,
        metrics=Metrics(),
        new_id=new_id,
        monotonic=time.monotonic,
        cursor_secret=b"nobody turns a page here",
        allowed_hosts=("127.0.0.1",),
        routers=(through_models(folder),),
        root_routers=(),
    )
    configure_logging(level="warning", form="json")  # as the service of this run
    asyncio.run(
        uvicorn.Server(server_config(api, host="127.0.0.1", port=port, new_id=new_id)).serve()
    )


def give_alone(folder: Path, port: int) -> None:
    """FastAPI with our models, and neither borders nor counters."""
    api = FastAPI()
    api.include_router(through_models(folder), prefix=PREFIX)
    uvicorn.run(
        api, host="127.0.0.1", port=port, http="httptools", loop="asyncio", access_log=False
    )


def through_models(folder: Path) -> APIRouter:
    """Both routes, validating and rendering what is in `folder`."""
    router = APIRouter()
    rankings = RankingsOut.model_validate_json((folder / "rankings.json").read_bytes())
    portfolio = PortfolioOut.model_validate_json((folder / "portfolio.json").read_bytes())

    @router.get("/scoring/rankings")
    async def all_rankings() -> RankingsOut:
        return rankings

    @router.get("/portfolio")
    async def whole_portfolio() -> PortfolioOut:
        return portfolio

    return router


def give_bare(folder: Path, port: int) -> None:
    """The floor: one answer, whatever is asked."""
    body = (folder / "portfolio.json").read_bytes()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    uvicorn.run(
        bare,
        host="127.0.0.1",
        port=port,
        http="httptools",
        loop="asyncio",
        access_log=False,
        lifespan="off",
    )


@asynccontextmanager
async def peer(folder: Path, kind: str = "model") -> AsyncIterator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process(["-m", "benchmarks.cached_responses", str(folder), str(port), kind]) as pid:
        await until_up(url, PREFIX + PORTFOLIO)
        yield Server(url, pid)


async def at_rest(server: Server) -> float:
    """Processor seconds a second of what the service does by itself."""
    before = server.processor_s() or 0.0
    await asyncio.sleep(2 * SECONDS)
    return ((server.processor_s() or 0.0) - before) / (2 * SECONDS)


async def figures(server: Server, message: bytes, rest: float = 0.0) -> Figures:
    def make(number: int, turn: int) -> Ask:
        del number, turn
        return Ask("it", message)

    await once(server.url, message)
    before = server.processor_s() or 0.0
    most = await flat_out(server.url, make, CONNECTIONS, SECONDS)
    spent = (server.processor_s() or 0.0) - before - rest * most.seconds
    cost = spent * 1e3 / most.answers
    calm: Run = await paced(server.url, (make, PACE))
    taken = calm.named["it"]
    statuses = ", ".join(str(status) for status in most.named["it"].statuses)
    return Figures(most.rate, cost, taken.share(0.99), taken.size, statuses)


async def measure(console: Console) -> None:
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        async with service(folder) as ours:
            _, body, headers = await once(ours.url, request("GET", PREFIX + RANKINGS))
            (folder / "rankings.json").write_bytes(body)
            _, body, _ = await once(ours.url, request("GET", PREFIX + PORTFOLIO))
            (folder / "portfolio.json").write_bytes(body)
            lines = len(json.loads((folder / "rankings.json").read_bytes())["items"])
            async with (
                peer(folder) as other,
                peer(folder, ALONE) as alone,
                peer(folder, BARE) as floor,
            ):
                cases = (
                    Case("rankings", RANKINGS, {}, 20.0),
                    Case("rankings, gzip", RANKINGS, {"Accept-Encoding": "gzip"}, 20.0),
                    Case("rankings, 304", RANKINGS, {"If-None-Match": headers["etag"]}, 20.0),
                    Case("portfolio", PORTFOLIO, {}, 5.0),
                )
                table = Table(
                    "asked", "statuses", "bytes", "answers/s", "peer", "ratio", "processor ms",
                    "peer", "ratio", "goal", "p99 ms", "goal",
                    title=f"{CONNECTIONS} connections, {lines} lines of rankings",
                )  # fmt: skip
                rest = await at_rest(ours)
                for case in cases:
                    bare = await figures(other, request("GET", PREFIX + case.path))
                    message = request("GET", PREFIX + case.path, case.headers)
                    mine = await figures(ours, message, rest)
                    table.add_row(
                        case.name, mine.statuses, str(mine.size), f"{mine.rate:.0f}",
                        f"{bare.rate:.0f}", f"{mine.rate / bare.rate:.1f} x", f"{mine.cost_ms:.3f}",
                        f"{bare.cost_ms:.3f}", f"{bare.cost_ms / mine.cost_ms:.1f} x",
                        f">= {case.goal:g} x", f"{mine.p99_ms:.1f}", "< 50",
                    )  # fmt: skip
                    times = mine.rate / bare.rate
                    note(
                        Row(
                            f"{case.name}, answers a second from the cache; p99",
                            f"{mine.rate:.0f}; {mine.p99_ms:.1f} ms", f"{bare.rate:.0f}",
                            f"{times:.1f} x", f">= {case.goal:g} x; < 50 ms",
                            times >= case.goal and mine.p99_ms < 50.0,
                        )
                    )  # fmt: skip
                message = request("GET", PREFIX + PORTFOLIO)
                bare = await figures(other, message)
                for name, server in (("FastAPI alone", alone), ("floor of it", floor)):
                    beside = await figures(server, message)
                    table.add_row(
                        name, beside.statuses, str(beside.size), f"{beside.rate:.0f}",
                        f"{bare.rate:.0f}", f"{beside.rate / bare.rate:.1f} x",
                        f"{beside.cost_ms:.3f}", f"{bare.cost_ms:.3f}",
                        f"{bare.cost_ms / beside.cost_ms:.1f} x", "", f"{beside.p99_ms:.1f}", "",
                    )  # fmt: skip
    console.print(table)


def main() -> None:
    """Measures; with three arguments it is a peer: folder of the documents, port, which."""
    if len(sys.argv) == 4:
        ways = {ALONE: give_alone, BARE: give_bare}
        ways.get(sys.argv[3], give)(Path(sys.argv[1]), int(sys.argv[2]))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the children end with us
    asyncio.run(measure(Console(width=150)))


if __name__ == "__main__":
    main()
