"""The stream over a real socket to the local exchange, with somebody who hears what it tells."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from app.adapters.kucoin.exchange import KucoinExchange, open_exchange
from app.adapters.kucoin.stream.market_stream import KucoinStream
from app.adapters.kucoin.stream.protocol import StreamLimits
from app.foundation.data_status import DataSource
from app.foundation.errors import Code, UnavailableError
from app.market.domain.stream import MarketUpdate, StreamTopic, TopicKind, Update
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.support.live_market import FAST, PLENTY, HandClock

PATIENCE_S = 120.0
# A busy machine makes these fail at times, too; then it connects once more.
QUICK = StreamLimits(
    welcome_s=2.0, open_s=5.0, ack_s=2.0, silence_s=1.0, check_s=2.0, backoff_cap_s=0.5,
    send_every_s=0.01, connects=1_000, tick_s=0.02, flush_s=0.01, again_s=0.1,
)  # fmt: skip


@dataclass
class Ear:
    """A listener that remembers."""

    now_ms: Callable[[], int]
    newest: dict[tuple[StreamTopic, type[Update]], MarketUpdate] = field(default_factory=dict)
    heard: list[MarketUpdate] = field(default_factory=list)
    backfills: int = 0
    is_unavailable: bool = False
    in_doubt: list[StreamTopic] = field(default_factory=list)

    def on_updates(self, updates: Sequence[MarketUpdate]) -> None:
        self.heard.extend(updates)
        for one in updates:
            self.newest[one.topic, type(one.update)] = one

    async def catch_up(self) -> None:
        if self.is_unavailable:
            raise UnavailableError(Code.EXCHANGE_UNAVAILABLE, "away")
        self.backfills += 1

    def on_sequence_restart(self, topic: StreamTopic) -> None:
        self.in_doubt.append(topic)

    def exchange_ms(self) -> int:
        return self.now_ms()

    def said(self, kind: type[Update]) -> Mapping[str, MarketUpdate]:
        return {topic.code: one for (topic, what), one in self.newest.items() if what is kind}


@dataclass
class Listening:
    """One local exchange, one stream that runs, and one who listens."""

    base_url: str
    exchange: KucoinExchange
    stream: KucoinStream
    ear: Ear
    clock: HandClock
    control: aiohttp.ClientSession
    codes: list[str] = field(default_factory=list)

    def topics(self, *kinds: TopicKind) -> list[StreamTopic]:
        return [StreamTopic(kind, code) for kind in kinds for code in self.codes]

    async def post(self, where: str, /, **body: Any) -> Any:
        async with self.control.post(f"{self.base_url}/_control/{where}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def look(self) -> Any:
        async with self.control.get(f"{self.base_url}/_control/stream") as answer:
            return await answer.json()

    async def heal(self) -> None:
        async with self.control.delete(f"{self.base_url}/_control/faults") as answer:
            assert answer.status == 200

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.01)

    async def moved(self, holds: Callable[[], bool]) -> None:
        """Until it holds, while the exchange's time goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self.clock.pass_(0.5)
                await asyncio.sleep(0.02)

    def all_live(self) -> bool:
        facts = self.stream.facts()
        return facts.topics > 0 and facts.active_topics == facts.topics


@asynccontextmanager
async def listening(contracts: int = 6, terms: StreamLimits = QUICK) -> AsyncIterator[Listening]:
    clock = HandClock()
    options = SandboxOptions(quota=PLENTY, contracts=contracts)
    async with (
        serve_exchange(options, clock.wall) as base_url,
        open_exchange(
            base_url=base_url,
            source=DataSource.SANDBOX,
            now=clock.now,
            monotonic=time.monotonic,
            sleep=asyncio.sleep,
            dice=random.Random(1),
            limits=FAST,
        ) as exchange,
        aiohttp.ClientSession() as control,
    ):
        ear = Ear(lambda: int(clock.wall() * 1000))
        stream = exchange.stream(terms)
        here = Listening(base_url, exchange, stream, ear, clock, control)
        here.codes = [one.code for one in (await exchange.contracts()).contracts]
        running = asyncio.ensure_future(stream.run(ear, lambda: None))
        try:
            yield here
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
