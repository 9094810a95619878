"""Cost of an API key and of rate limits, beside the same request in open mode.

Two servers answer the same cached route of the same application. One is in open mode without
limits. The other one has 20 keys, and each request carries one and counts against the limits of its
key and its address, which are too high to refuse it.

The figure is the processor time of the server per answer that the second needs more, as the median
of ROUNDS alternating rounds. Prints one table, asserts nothing.
"""

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from rich.console import Console
from rich.table import Table
from starlette.responses import Response

from app.container.application import create_api
from app.foundation.http.permissions import AUTHENTICATOR, requires
from app.foundation.http.response_cache import VERSIONS, cacheable
from app.foundation.http.responses import answer
from app.foundation.http.routing import api_router
from app.foundation.http.server import server_config
from app.foundation.metrics import Metrics
from app.foundation.principals import Role
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.foundation.state_version import Input, StateVersion
from app.security.domain.rate_limits import RateLimits
from app.telemetry.logging import configure_logging
from benchmarks.cached_responses import Figures, one_round, run
from benchmarks.http import PREFIX, Server, free_port, process, until_up
from benchmarks.http_load import request
from benchmarks.result_table import Row, note
from tests.support.api_keys import KeyDesk, bearer

ROUNDS, KEYS = 7, 20
GOAL_US = 150.0
OPEN, KEYED = "open", "keyed"
PATH = "/small"
_HIGH = 1_000_000
HIGH = RateLimits(_HIGH, _HIGH, _HIGH, _HIGH, _HIGH, _HIGH)


class Unchanged:
    """A state that never changes."""

    def version(self, depends_on: Input) -> StateVersion:
        del depends_on
        return (1,)

    async def load_version(self, depends_on: Input) -> StateVersion:
        return self.version(depends_on)


def small() -> APIRouter:
    router = api_router("system")

    @router.get(PATH)
    @requires(Role.VIEWER)
    @cacheable(depends_on=Input.SCORES)
    async def small() -> Response:
        return answer(b'{"value":1}')

    return router


def serve(folder: Path, port: int, kind: str) -> None:
    """A server with keys and limits, or one in open mode without limits."""
    url = f"sqlite+aiosqlite:///{folder}/{kind}.sqlite3"
    asyncio.run(migrations.upgrade(url))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        database = Database(DatabaseOptions(url), time.monotonic, lambda: 0.5, lambda _: ())
        await database.open()
        desk = KeyDesk(database)
        for number in range(KEYS if kind == KEYED else 0):
            token = await desk.issue(f"key-{number}", Role.VIEWER)
            (folder / "key").write_text(token)
        yield {AUTHENTICATOR: desk.ring, VERSIONS: Unchanged()}
        await database.close()

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
        rate_limits=HIGH if kind == KEYED else None,
        routers=(small(),),
    )
    configure_logging(level="error", form="json")
    run(server_config(api, host="127.0.0.1", port=port, new_id=new_id))


@asynccontextmanager
async def served(folder: Path, kind: str) -> AsyncIterator[Server]:
    port = free_port()
    with process(["-m", "benchmarks.authentication", str(folder), str(port), kind]) as pid:
        await until_up(f"http://127.0.0.1:{port}", "/livez")
        yield Server(f"http://127.0.0.1:{port}", pid)


async def measure(console: Console) -> None:
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        async with served(folder, OPEN) as free, served(folder, KEYED) as keyed:
            path = PREFIX + PATH
            plain = request("GET", path)
            with_key = request("GET", path, bearer((folder / "key").read_text()))
            theirs, mine = [], []
            for _ in range(ROUNDS):
                theirs.append(await one_round(free, plain))
                mine.append(await one_round(keyed, with_key))
    base, cost = Figures.of(theirs), Figures.of(mine)
    added_us = (cost.cost_ms - base.cost_ms) * 1e3
    table = Table("server", "statuses", "answers/s", "processor us")
    for name, one in (("open mode, no limits", base), ("key and limits", cost)):
        statuses = ", ".join(map(str, one.last.statuses))
        table.add_row(name, statuses, f"{one.rate:.0f}", f"{one.cost_ms * 1e3:.0f}")
    table.caption = f"a key and its limits add {added_us:.0f} us to a request"
    console.print(table)
    note(
        Row(
            "authentication and limits: processor us added to a request",
            f"{added_us:.0f} us", f"{base.cost_ms * 1e3:.0f} us in open mode", "",
            f"< {GOAL_US:.0f} us", added_us < GOAL_US,
        )
    )  # fmt: skip


def main() -> None:
    """Measures; with three arguments it is a server: folder, port, kind."""
    if len(sys.argv) == 4:
        serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the children end with us
    asyncio.run(measure(Console(width=150)))


if __name__ == "__main__":
    main()
