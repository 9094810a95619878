"""Time of hostile bodies and search texts (rows I07, I14); prints one table."""

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import structlog
from rich.console import Console
from rich.table import Table

from app.foundation.http.errors import RequestError
from app.foundation.http.request_body import parse
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from benchmarks.result_table import Row, note
from tests.support.service_in_process import Running, running, settings_for

TURNS = 50
BODIES = {
    "60 000 open brackets": b"[" * 60_000,
    "12 000 objects in each other": b'{"a":' * 12_000,
    "20 000 pairs, then 40 open ones": b"[]," * 20_000 + b"[" * 40,
    "30 000 escapes, then 33 open ones": b'"' + b'\\"' * 30_000 + b'",' + b"[" * 33,
}
TEXTS = ("BTC", "%", "' OR 1=1 --", "(a+)+$", "(.*)*x", "A" * 63 + "!")


def refused(body: bytes) -> None:
    """Parses the body, which must be refused."""
    try:
        parse(body)
    except RequestError:
        return
    raise SystemExit("a hostile body was accepted")


def row(name: str, took: list[float]) -> tuple[str, str, str]:
    note(Row(f"hostile {name}, median", f"{median(took) * 1e3:.2f} ms"))
    return name, f"{median(took) * 1e3:.2f}", f"{max(took) * 1e3:.2f}"


def timed(work: Callable[[], None]) -> list[float]:
    """Seconds of each turn."""
    took = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return took


async def searched(service: Running, text: str) -> list[float]:
    took = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        await service.get("/symbols", search=text)
        took.append(time.perf_counter() - begun)
    return took


async def main() -> None:
    """Measures the parser alone, then the search through the whole application."""
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    table = Table("hostile input", "median ms", "worst ms")
    for name, body in BODIES.items():
        table.add_row(*row(f"body: {name}", timed(partial(refused, body))))
    with tempfile.TemporaryDirectory() as room:
        clock = time.time  # noqa: TID251  # of the exchange, which has no other
        async with serve_exchange(SandboxOptions(quota=1_000_000), clock) as url:
            database = f"sqlite+aiosqlite:///{room}/bench.sqlite3"
            async with running(settings_for(url, database, background=False)) as service:
                await service.post("/symbols/sync")
                known = len((await service.get("/symbols", limit=500))["items"])
                for text in TEXTS:
                    took = await searched(service, text)
                    table.add_row(*row(f"search of {known}+ symbols: {text[:20]}", took))
    Console().print(table)


if __name__ == "__main__":
    asyncio.run(main())
