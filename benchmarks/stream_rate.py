"""A thousand events a second through store and stream to two hundred readers, beside a bare peer.

Events are stored in transactions of fifty, as a scoring run stores them. The readers, in a process
of their own, only look for the last event. The peer writes the same bytes to as many connections
and does nothing else.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from rich.console import Console
from rich.table import Table

from app.foundation.events import EventRecord
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.operations.domain.event_codec import encode_event
from app.operations.services.event_messages import event_frame
from app.portfolio.domain.events import PlanCreated
from benchmarks.result_table import Row, note
from tests.support.streaming import masked, served
from tests.support.trading_desk import NOW

CLIENTS, EVENTS, TOGETHER, GOAL = 200, 10_000, 50, 1_000
PLAN = PlanCreated("run", 1, 0, NOW)
LAST = "the-last-of-them"
_SUBSCRIBE = '{"type":"subscribe","topics":[' + ",".join(['"rebalance"'] * 20) + "]}"
_UPGRADE = (
    "GET /api/symbol-mgmt/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one pass, by the wall clock and of the service's processor time."""

    seconds: float
    processor_s: float

    def row(self, name: str) -> tuple[str, str, str, str]:
        per_event, per_delivery = self.processor_s / EVENTS, self.processor_s / EVENTS / CLIENTS
        rate = f"{EVENTS / self.seconds:.0f}"
        return name, rate, f"{1e3 * per_event:.3f}", f"{1e6 * per_delivery:.2f}"


async def readers(port: int, *, is_bare: bool) -> None:
    """Subscribes and reads until the last event has reached every reader."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)  # noqa: TID251  # a benchmark of our own server
        writer.write(_UPGRADE.encode())
        if not is_bare:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(masked(_SUBSCRIBE))
        tail = b""
        while LAST.encode() not in tail:
            said = await reader.read(262_144)
            if not said:
                raise ConnectionError(f"the server has ended a connection: {tail!r}")
            tail = tail[-200:] + said
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(one())


async def paced(
    kind: str, port: int, ready: Callable[[], bool], tell: Callable[[], Awaitable[None]]
) -> Pace:
    """Seconds from the first event until every reader has the last one."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.stream_rate", str(port), kind
    )
    try:
        while not ready():  # noqa: ASYNC110  # a bench looks from outside
            await asyncio.sleep(0.05)
        begun, used = time.perf_counter(), time.process_time()
        await tell()
        if await child.wait():
            raise RuntimeError("the readers have failed")
        return Pace(time.perf_counter() - begun, time.process_time() - used)
    finally:
        if child.returncode is None:
            child.kill()


def events(begin: int) -> list[PlanCreated]:
    names = (LAST if at + 1 == EVENTS else f"run-{at}" for at in range(begin, begin + TOGETHER))
    return [replace(PLAN, run_id=name) for name in names]


async def store(database: Database) -> None:
    for begin in range(0, EVENTS, TOGETHER):
        async with database.write() as unit:
            for event in events(begin):
                unit.publish_after_commit(event)


async def ours(database: Database) -> Pace:
    async with served(database) as opened:
        known = opened.desk.stream._readers  # noqa: SLF001  # a bench looks inside

        def ready() -> bool:
            return sum(bool(one.topics) for one in known) == CLIENTS

        port = int(opened.address.partition("/")[0].rpartition(":")[2])
        return await paced("stream", port, ready, lambda: store(database))


async def bare() -> Pace:
    """The same bytes over as many connections, from memory."""
    writers: list[asyncio.StreamWriter] = []

    async def taken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    def written(event: PlanCreated, seq: int) -> bytes:
        draft = encode_event(event)[0]
        kept = EventRecord(
            draft.topic, draft.type, draft.subject, draft.data, draft.occurred_at, seq
        )
        return event_frame(kept).text.encode()

    async def tell() -> None:
        for begin in range(0, EVENTS, TOGETHER):
            piece = b"".join(written(one, begin + at) for at, one in enumerate(events(begin)))
            for writer in writers:
                writer.write(piece)
            for writer in writers:
                await writer.drain()

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    async with server:
        port = int(server.sockets[0].getsockname()[1])
        return await paced("bare", port, lambda: len(writers) == CLIENTS, tell)


async def bench() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as room:
        address = f"sqlite+aiosqlite:///{Path(room) / 'stream.sqlite3'}"
        await migrations.upgrade(address)
        database = Database(DatabaseOptions(url=address), time.monotonic, lambda: 0.5, encode_event)
        await database.open()
        begun, used = time.perf_counter(), time.process_time()
        await store(database)
        stored = Pace(time.perf_counter() - begun, time.process_time() - used)
        streamed = await ours(database)
        await database.close()
    title = f"{EVENTS} events, {CLIENTS} readers, load {os.getloadavg()[0]:.1f}"
    table = Table("", f"events/s (goal {GOAL})", "ms an event", "us a delivery", title=title)
    table.add_row(*stored.row("stored, nobody reads")[:3], "")
    table.add_row(*streamed.row("stored and streamed"))
    other = await bare()
    table.add_row(*other.row("bare peer, from memory"))
    Console().print(table)
    rate, least = EVENTS / streamed.seconds, f">= {GOAL}/s"
    what, peer = f"stream, events a second to {CLIENTS} readers", f"{EVENTS / other.seconds:.0f}"
    note(
        Row(
            what, f"{rate:.0f}", peer, f"{rate * other.seconds / EVENTS:.2f} x", least, rate >= GOAL
        )
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(readers(int(sys.argv[1]), is_bare=sys.argv[2] == "bare"))
    else:
        asyncio.run(bench())
