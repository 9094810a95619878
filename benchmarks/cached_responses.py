"""Cost of a response from the response cache, beside the same document through a response model.

The peer is the same route in the same application (guards, counters, log lines), under the same
server, event loop and interpreter settings, which renders its answer through the response model.
Two more stand beside the portfolio: FastAPI alone with the same model, and as the floor a bare ASGI
application that sends the same bytes.

Each goal is the ratio of processor time of the server per answer, less the time that the service
spends at rest, as the median of ROUNDS alternating rounds. Answers a second are shown beside it:
on two cores they depend on who else wants a processor. Prints one table, asserts nothing.
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
from statistics import median

import uvicorn
from fastapi import APIRouter, FastAPI
from rich.console import Console
from rich.table import Table
from starlette.types import ASGIApp, Receive, Scope, Send

from app.container.application import create_api
from app.foundation.http.server import server_config
from app.foundation.metrics import Metrics
from app.main import tune_interpreter
from app.portfolio.api.portfolio_routes import PortfolioOut
from app.scoring.api.schemas import RankingsOut
from app.telemetry.logging import configure_logging
from benchmarks.http import PREFIX, Server, free_port, process, service, until_up
from benchmarks.http_load import Ask, Pace, once, paced, request
from benchmarks.result_table import Row, note
from benchmarks.saturation import Saturation, saturate

CONNECTIONS, SECONDS = 100, float(os.environ.get("MYBENCH_SECONDS", "2"))
ROUNDS = int(os.environ.get("MYBENCH_RUNS", "3"))
PACE = Pace(CONNECTIONS, 3.0, 2 * SECONDS)  # 300 requests a second, for the tail
GOAL_MS = 50.0
ALONE, BARE = "alone", "bare"
RANKINGS, PORTFOLIO = "/scoring/rankings?limit=600", "/portfolio"


@dataclass(frozen=True)
class Case:
    name: str
    path: str
    headers: dict[str, str]
    goal: float  # processor time of the peer per answer, in units of that of the service


@dataclass(frozen=True)
class Figures:
    """Of one server and case: medians of the rounds."""

    rate: float  # answers a second
    cost_ms: float  # processor time of the server per answer
    last: Saturation

    @classmethod
    def of(cls, rounds: list[tuple[Saturation, float]]) -> "Figures":
        rate = median(one.rate for one, _ in rounds)
        return cls(rate, median(cost for _, cost in rounds), rounds[-1][0])


def serve_models(folder: Path, port: int) -> None:
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
        cursor_secret=b"no page is ever turned here",
        allowed_hosts=("127.0.0.1",),
        logs_requests=False,
        routers=(through_models(folder),),
        root_routers=(),
    )
    configure_logging(level="warning", form="json")  # as the service of this run
    run(server_config(api, host="127.0.0.1", port=port, new_id=new_id))


def serve_alone(folder: Path, port: int) -> None:
    """FastAPI with our models, without guards and counters."""
    api = FastAPI()
    api.include_router(through_models(folder), prefix=PREFIX)
    run(plain(api, port))


def serve_bare(folder: Path, port: int) -> None:
    """The floor: one answer to every request."""
    body = (folder / "portfolio.json").read_bytes()
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    run(plain(bare, port, lifespan="off"))


def plain(app: ASGIApp, port: int, lifespan: str = "auto") -> uvicorn.Config:
    """uvicorn as it comes, with the HTTP parser of the service."""
    return uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        access_log=False,
        lifespan=lifespan,  # type: ignore[arg-type]  # one of its words
    )


def run(config: uvicorn.Config) -> None:
    """Serve as the service does: on asyncio's own loop (uvicorn alone would take uvloop)."""
    tune_interpreter()
    asyncio.run(uvicorn.Server(config).serve())


def through_models(folder: Path) -> APIRouter:
    """Both routes, validating and rendering the documents in `folder`."""
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


@asynccontextmanager
async def peer(folder: Path, kind: str = "model") -> AsyncIterator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["-m", "benchmarks.cached_responses", str(folder), str(port), kind]
    with process(arguments) as pid:
        await until_up(url, PREFIX + PORTFOLIO)
        yield Server(url, pid)


async def at_rest(server: Server) -> float:
    """Processor seconds a second that the service spends without requests."""
    before = server.processor_s() or 0.0
    await asyncio.sleep(4 * SECONDS)
    return ((server.processor_s() or 0.0) - before) / (4 * SECONDS)


async def one_round(server: Server, message: bytes, rest: float = 0.0) -> tuple[Saturation, float]:
    """Answers of one round, and milliseconds of processor time per answer."""
    await once(server.url, message)
    before = server.processor_s() or 0.0
    most = await asyncio.to_thread(saturate, server.url, message, CONNECTIONS, SECONDS)
    spent = (server.processor_s() or 0.0) - before - rest * most.seconds
    return most, spent * 1e3 / most.answers


async def compared(
    ours: Server, other: Server, messages: tuple[bytes, bytes], rest: float
) -> tuple[Figures, Figures]:
    """Figures of both, round by round in turns."""
    mine, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(await one_round(other, messages[1]))
        mine.append(await one_round(ours, messages[0], rest))
    return Figures.of(mine), Figures.of(theirs)


async def p99_ms(server: Server, message: bytes) -> float:
    calm = await paced(server.url, (lambda _connection, _turn: Ask("it", message), PACE))
    return calm.named["it"].share(0.99)


async def measure(console: Console) -> None:
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        async with service(folder) as ours:
            _, body, headers = await once(ours.url, request("GET", PREFIX + RANKINGS))
            (folder / "rankings.json").write_bytes(body)
            _, body, _ = await once(ours.url, request("GET", PREFIX + PORTFOLIO))
            (folder / "portfolio.json").write_bytes(body)
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
                lines = len(json.loads((folder / "rankings.json").read_bytes())["items"])
                load = os.getloadavg()[0]
                table = Table(
                    "asked", "statuses", "bytes", "answers/s", "peer", "ratio", "processor ms",
                    "peer", "ratio", "goal", "p99 ms", "goal",
                    title=f"{CONNECTIONS} connections, {lines} lines of rankings, load {load:.1f}",
                )  # fmt: skip
                rest = await at_rest(ours)
                for case in cases:
                    message = request("GET", PREFIX + case.path, case.headers)
                    model = request("GET", PREFIX + case.path)
                    mine, theirs = await compared(ours, other, (message, model), rest)
                    add(table, case.name, mine, theirs, case.goal, await p99_ms(ours, message))
                message = request("GET", PREFIX + PORTFOLIO)
                for name, server in (("FastAPI alone", alone), ("bare ASGI", floor)):
                    mine, theirs = await compared(server, other, (message, message), 0.0)
                    add(table, name, mine, theirs)
                table.caption = f"at rest the service takes {rest:.3f} of a core"
    console.print(table)


def add(
    table: Table,
    name: str,
    mine: Figures,
    theirs: Figures,
    goal: float | None = None,
    p99: float | None = None,
) -> None:
    """Adds a line; with a goal also to the table of all benchmarks."""
    times = theirs.cost_ms / mine.cost_ms
    table.add_row(
        name, ", ".join(map(str, mine.last.statuses)), str(mine.last.size), f"{mine.rate:.0f}",
        f"{theirs.rate:.0f}", f"{mine.rate / theirs.rate:.1f} x", f"{mine.cost_ms:.3f}",
        f"{theirs.cost_ms:.3f}", f"{times:.1f} x", "" if goal is None else f">= {goal:g} x",
        "" if p99 is None else f"{p99:.1f}", "" if p99 is None else f"< {GOAL_MS:.0f}",
    )  # fmt: skip
    if goal is None or p99 is None:
        return
    note(
        Row(
            f"{name}: processor ms per answer from the cache; p99",
            f"{mine.cost_ms:.3f}; {p99:.1f} ms", f"{theirs.cost_ms:.3f}", f"{times:.1f} x",
            f">= {goal:g} x; < {GOAL_MS:.0f} ms", times >= goal and p99 < GOAL_MS,
        )
    )  # fmt: skip


def main() -> None:
    """Measures; with three arguments it is a peer: folder of the documents, port, kind."""
    if len(sys.argv) == 4:
        kinds = {ALONE: serve_alone, BARE: serve_bare}
        kinds.get(sys.argv[3], serve_models)(Path(sys.argv[1]), int(sys.argv[2]))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the children end with us
    asyncio.run(measure(Console(width=150)))


if __name__ == "__main__":
    main()
