"""Both ends of a measured feed: the process that sends, and a streamed market that reads."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251  # a bench is its own root
from typing import Any, Final

import aiohttp

from app.adapters.kucoin.exchange import KucoinExchange, open_exchange
from app.adapters.kucoin.limiter import KucoinLimits
from app.adapters.kucoin.stream.market_stream import KucoinStream
from app.adapters.kucoin.stream.protocol import StreamLimits, StreamTicket
from app.configuration.domain.model import Configuration
from app.container.runtime_values import new_id, utc_now
from app.foundation.data_status import DataSource
from app.foundation.metrics import Metrics
from app.foundation.sql import migrations
from app.foundation.sql.database import Database
from app.foundation.sql.engines import DatabaseOptions
from app.main import tune_interpreter
from app.market.domain.stream import MarketUpdate
from app.market.services.service import MarketData
from app.market.services.stream_consumer import StreamConsumer
from app.market.services.symbol_registry import Registry, shipped_sectors
from app.operations.domain.event_codec import encode_event
from benchmarks.feed_sender import CLOSE, prices_of

DICE: Final = Random(1)  # noqa: S311  # jitter needs no secrecy


@dataclass(frozen=True, slots=True)
class Far:
    """The sending process."""

    exchange_url: str
    port: int
    session: aiohttp.ClientSession

    async def go(self, **asked: Any) -> dict[str, Any]:
        url, patience = f"http://127.0.0.1:{self.port}/go", aiohttp.ClientTimeout(total=None)
        async with self.session.post(url, json=asked, timeout=patience) as answer:
            said: dict[str, Any] = await answer.json()
            return said


@asynccontextmanager
async def far_end() -> AsyncIterator[Far]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.feed_sender",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said = b"" if child.stdout is None else await child.stdout.readline()
        exchange_url, port = said.decode().split()
        async with aiohttp.ClientSession() as session:
            yield Far(exchange_url, int(port), session)
    finally:
        child.kill()
        await child.wait()


async def until(holds: Callable[[], bool], step_s: float = 0.01) -> None:
    while not holds():  # noqa: ASYNC110  # a bench looks from outside
        await asyncio.sleep(step_s)


async def nobody() -> tuple[str, ...]:
    return ()


@dataclass
class Ours:
    """A streamed market; `shown` has what became visible: when (ns), contract, stamp (ms)."""

    data: MarketData
    stream: KucoinStream
    streamed: StreamConsumer
    shown: list[tuple[int, list[tuple[str, int]]]] = field(default_factory=list)
    is_noting: bool = False

    def on_updates(self, updates: Sequence[MarketUpdate]) -> None:
        self.streamed.on_updates(updates)
        if self.is_noting:
            tickers = self.data.live.market.tickers
            at = [(one.topic.code, one.stamped_ms) for one in updates if one.topic.kind == "quote"]
            if any(tickers[code].at_ms < ms for code, ms in at):
                raise RuntimeError("what was told does not show")
            self.shown.append((time.time_ns(), at))

    async def catch_up(self) -> None:
        """Nothing was missed before the first message."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.streamed, name)

    def came(self) -> int:
        facts = self.stream.facts()
        lost = sum(count for reason, count in facts.dropped.items() if reason != "replaced")
        return facts.messages + lost

    def is_live(self) -> bool:
        facts = self.stream.facts()
        return 0 < facts.topics == facts.active_topics


@asynccontextmanager
async def our_end(far: Far, room: Path, *, is_watched: bool) -> AsyncIterator[Ours]:
    address = f"sqlite+aiosqlite:///{room / new_id()}.sqlite3"
    await migrations.upgrade(address)
    database = Database(DatabaseOptions(url=address), time.monotonic, lambda: 0.5, encode_event)
    await database.open()
    limits = KucoinLimits(quota=1_000_000, read_timeout_s=60.0, total_timeout_s=60.0)
    async with open_exchange(
        base_url=far.exchange_url, source=DataSource.SANDBOX, now=utc_now,
        monotonic=time.monotonic, sleep=asyncio.sleep, dice=DICE, limits=limits,
    ) as exchange, asyncio.TaskGroup() as group:  # fmt: skip
        ours = await assembled(exchange, database, far)
        tasks = [group.create_task(ours.stream.run(ours, lambda: None))]
        await ours.streamed.check()
        if is_watched:
            tasks.append(group.create_task(ours.streamed.watch(lambda: None)))
        try:
            await until(ours.is_live)
            tune_interpreter()  # as in every server
            yield ours
        finally:
            for task in tasks:
                task.cancel()
    await database.close()


async def assembled(exchange: KucoinExchange, database: Database, far: Far) -> Ours:
    settings = Configuration()
    registry = Registry(
        exchange=exchange, database=database, sectors=shipped_sectors(), clock=utc_now,
        monotonic=time.monotonic, new_id=new_id, member_codes=nobody,
    )  # fmt: skip
    data = MarketData(
        exchange, database, registry, lambda: settings, utc_now, time.monotonic, Metrics()
    )
    await data.refresh_market()
    data.filled.set()  # what is not streamed costs nothing here

    async def ticket() -> StreamTicket:
        return StreamTicket("t", f"ws://127.0.0.1:{far.port}/", 18.0, 10.0)

    codes = {one.code for one in (await prices_of(far.exchange_url))[:CLOSE]}
    first = [one.symbol for one in registry.index.entries if one.contract.code in codes]

    async def closest() -> tuple[str, ...]:
        return tuple(first)

    stream = KucoinStream(ticket, terms=StreamLimits(), monotonic=time.monotonic, dice=DICE)
    return Ours(data, stream, StreamConsumer(data, stream, closest))
