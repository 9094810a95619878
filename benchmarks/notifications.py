"""Throughput of notifications to a receiver that comes back after a day.

The backlog is written as the outbox writes it; the receiver is a process of its own on the
loopback interface. The peer is the same receiver, called as fast as one connection can. Also
measured: an evaluation of the alert rules after no change, a price change and a stored change.
"""

import asyncio
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal
from random import Random  # noqa: TID251  # jitter of a bench

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.table import Table

from app.adapters.notifications.egress import Egress
from app.adapters.notifications.senders import WebhookNotifier
from app.alerts.domain.notifications import (
    Channel,
    ChannelKind,
    DeliveryState,
    Notification,
    NotificationKind,
)
from app.alerts.services.delivery import NotificationDispatcher
from app.alerts.services.notifications import by_kind
from app.alerts.storage.notifications import NotificationRepository
from app.foundation.metrics import Metrics
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.foundation.sql.key_value import KeyValueRepository
from app.operations.domain.event_codec import encode_event
from benchmarks.result_table import Row, note
from tests.support.trading_desk import SYMBOLS, Desk

BACKLOG = int(os.environ.get("BENCH_BACKLOG", "20000"))
LOOKS = 100
DICE = Random(1).random  # noqa: S311  # jitter of a bench


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  # a bench has a real clock


async def receive() -> None:
    """Accepts every delivery, on a port that it prints."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201  # to the bench
    await asyncio.Event().wait()


async def bare(url: str, body: bytes, count: int) -> float:
    """Deliveries a second over one connection without any record."""
    async with aiohttp.ClientSession() as session:
        begun = time.perf_counter()
        for _ in range(count):
            async with session.post(url, data=body) as answer:
                await answer.read()
        return count / (time.perf_counter() - begun)


async def backlog(database: Database, channel: Channel) -> None:
    body = {"type": "portfolio_changed", "topic": "portfolio_change", "data": {"reason": "x" * 200}}
    async with database.write() as unit:
        await unit.get(NotificationRepository).save_channel(channel)
    for start in range(0, BACKLOG, 2_000):
        async with database.write() as unit:
            for seq in range(start, min(start + 2_000, BACKLOG)):
                notice = Notification(
                    NotificationKind.TRADE, False, "k", "Portfolio", "", body, seq + 1
                )
                await unit.get(NotificationRepository).add(
                    channel.id, notice, now(), DeliveryState.PENDING
                )


async def looks(database: Database) -> dict[str, float]:
    """Processor milliseconds of an evaluation of every rule over ten members, by what changed."""
    desk = await Desk(database).filled()

    async def nothing(_: int) -> None: ...

    async def prices(number: int) -> None:
        for symbol in SYMBOLS[:10]:
            desk.quote(symbol, mark=Decimal(10) + Decimal(number % 7) / 1000)

    async def committed(number: int) -> None:
        async with database.write() as unit:
            await unit.get(KeyValueRepository).put("bench", str(number))

    spent: dict[str, float] = {}
    for change in (nothing, prices, committed):
        await desk.alerts.evaluate()
        used = 0.0
        for number in range(LOOKS):
            await change(number)
            begun = time.process_time()
            await desk.alerts.evaluate()
            used += time.process_time() - begun
        spent[change.__name__] = 1e3 * used / LOOKS
    return spent


async def bench(url: str) -> None:
    with tempfile.TemporaryDirectory() as room:
        address = f"sqlite+aiosqlite:///{room}/bench.sqlite3"
        await migrations.upgrade(address)
        options = DatabaseOptions(url=address)
        database = Database(
            options, time.monotonic, DICE, encode_event, lambda _: None, lambda _: None
        )
        await database.open()
        kinds = tuple(NotificationKind)
        channel = Channel("c", "desk", ChannelKind.WEBHOOK, url, "s" * 16, kinds, True, now())
        await backlog(database, channel)
        way = WebhookNotifier(lambda: int(time.monotonic()), Egress(allow_private=True))
        dispatcher = NotificationDispatcher(database, now, DICE, by_kind([way]), Metrics())
        begun, used = time.perf_counter(), time.process_time()
        await dispatcher.drain(channel)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - used
        async with database.read() as unit:
            left = await unit.get(NotificationRepository).waiting(channel.id, 1)
        peer = await bare(url, b"x" * 400, 2_000)
        evaluations = await looks(database)
        await database.close()
    table = Table("", "", title=f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    table.add_row("backlog", f"{BACKLOG} notices" + (", not all of it drained" if left else ""))
    table.add_row("drained", f"{BACKLOG / seconds:.0f} a second (goal 1000)")
    table.add_row("processor time", f"{1e3 * cpu / BACKLOG:.2f} ms a notice")
    table.add_row("bare connection", f"{peer:.0f} a second")
    for what, spent in evaluations.items():
        name = f"alerts, {what} changed"
        table.add_row(name, f"{spent:.2f} ms each, {1e3 / spent:.0f} a second of processor time")
    Console().print(table)
    rate = BACKLOG / seconds
    note(
        Row(
            "notifications, drained a second", f"{rate:.0f}", f"{peer:.0f}", f"{rate / peer:.2f} x",
            ">= 1000/s", rate >= 1000.0 and not left,
        )
    )  # fmt: skip


async def main() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.notifications", "receive", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None  # noqa: S101  # it was asked for
    try:
        port = int(await child.stdout.readline())
        await bench(f"http://127.0.0.1:{port}/hook")
    finally:
        child.kill()
        await child.wait()


if __name__ == "__main__":
    asyncio.run(receive() if "receive" in sys.argv else main())
