"""A service whose clock is walked by hand: a real exchange over a socket, real use cases."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import count
from types import MappingProxyType
from typing import Final

from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import FeedSettings
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import Code, ServiceError
from app.foundation.health import Mode
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.sql.database import Database
from app.market.domain.stream import TopicKind
from app.market.services.backfill import first_fill
from app.market.services.service_mode import create_current_mode
from app.market.services.stream_consumer import StreamConsumer
from app.scoring.services.service import Scoring
from tests.market.services.test_market_stream import Mouth, Scene
from tests.support.live_market import open_market
from tests.support.trading_desk import WHO, Desk

CONTRACTS: Final = 40
MEMBERS: Final = 5
ASKED_S: Final = 60  # between two askings for the quotes where they are not told
# The exchange's market stands still here, and so does its clock: contracts are asked for once.
SETTINGS: Final = replace(Configuration(), feed=FeedSettings(contracts_s=3_600))


@dataclass(frozen=True, slots=True)
class Second:
    """What was so at one second: the mode, and what a member and a rebalance were told."""

    at_s: int
    mode: Mode
    may_trade: bool
    refused: Code | None

    def is_as(self, other: "Second | None") -> bool:
        return other is not None and replace(self, at_s=other.at_s) == other


@dataclass
class Walk:
    """Everything that a second brings: what is told, what is asked for, what is decided."""

    scene: Scene
    desk: Desk
    scoring: Scoring
    passed_s: int = 0
    is_stream_dead: bool = False
    mute: frozenset[str] = frozenset()  # codes of which nobody tells, though it seems so
    seconds: list[Second] = field(default_factory=list)

    @property
    def symbol(self) -> str:
        return self.scene.data.registry.index.entries[0].symbol

    async def second(self) -> Second:
        """One more of them, and what was decided in it."""
        scene, now = self.scene, self.passed_s + 1
        self.passed_s = now
        scene.live.clock.pass_(1.0)
        self.desk.now = scene.live.clock.now()
        if scene.data.is_streamed:
            self._tell()
            await scene.streamed.check()
        elif now % ASKED_S == 0:
            with suppress(ServiceError):
                await scene.data.fetch_contracts()
                await scene.data.refresh_tickers()
        self.seconds.append(await self._decided(now))
        return self.seconds[-1]

    async def until(self, at_s: int) -> None:
        while self.passed_s < at_s:
            await self.second()

    async def scheduled(self) -> None:
        """Everything that the schedule asks the exchange for, whatever comes of it."""
        data = self.scene.data
        asked = (
            data.refresh_market,
            data.refresh_candles,
            lambda: data.refresh_books(15.0),
            data.refresh_funding,
        )
        for ask in asked:
            with suppress(ServiceError):
                await ask()

    def _tell(self) -> None:
        mouth = self.scene.mouth
        if self.is_stream_dead:
            mouth.heard = {}
            return
        since = self.scene.data.monotonic()
        mouth.heard = {topic: mouth.heard.get(topic, since) for topic in mouth.wanted}
        for topic in mouth.wanted:
            if topic.kind is TopicKind.QUOTE and topic.code not in self.mute:
                self.scene.say(topic.code, self.scene.quote(topic.code))

    async def _decided(self, at_s: int) -> Second:
        member = (await self.desk.members())[0]
        verdict, _ = await self.desk.trading.should_trade(member)
        refused = None
        try:
            await self.desk.rebalancing.rebalance(WHO)
        except ServiceError as error:
            refused = error.code
        mode = self.desk.mode
        assert mode is not None
        return Second(at_s, mode(), verdict.trade, refused)

    def changes(self) -> list[Second]:
        """The seconds that differ from the one before."""
        found: list[Second] = []
        for one in self.seconds:
            if not one.is_as(found[-1] if found else None):
                found.append(one)
        return found


async def _yield(_: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def walking(database: Database, *, is_streamed: bool = True) -> AsyncIterator[Walk]:
    """A portfolio on fresh data, decided on each second from here on."""
    async with open_market(database, contracts=CONTRACTS) as live:
        data = live.market(SETTINGS)
        data.is_streamed = is_streamed
        data.quality.sleep = _yield  # its pauses are no time of this walk
        await first_fill(data)
        await live.post("clock", {"speed": 0})
        mouth, ids = Mouth(), count(1)

        async def nobody() -> tuple[str, ...]:
            return ()

        streamed = StreamConsumer(data, mouth, nobody)
        data.quotes.streamed_since = streamed.streamed_quotes
        scoring = Scoring(
            market=data,
            database=database,
            clock=live.clock.now,
            monotonic=live.clock.monotonic,
            new_id=lambda: f"00000000-0000-4000-9000-{next(ids):012}",
            configuration=lambda: SETTINGS,
            idempotency=IdempotentExecutor(database, live.clock.now),
        )
        async with database.write() as unit:
            await unit.get(ConfigurationRepository).get_or_create(live.clock.now(), "test")
        await scoring.calculate()
        desk = Desk(
            database,
            market=data,  # type: ignore[arg-type]  # a real one in place of the bench
            boards=scoring,  # type: ignore[arg-type]  # its boards as well
            now=live.clock.now(),
            mode=create_current_mode(data, database, live.clock.monotonic),
        )
        await desk.portfolio.initialize(MEMBERS, "start", WHO)
        yield Walk(Scene(live, data, mouth, streamed), desk, scoring)


async def rest_dead(walk: Walk) -> None:
    await walk.scene.live.fault("status", status=503)


async def stream_dead(walk: Walk) -> None:
    walk.is_stream_dead = True


async def both_dead(walk: Walk) -> None:
    await rest_dead(walk)
    await stream_dead(walk)


async def topic_dead(walk: Walk) -> None:
    """Of one member nobody tells any more, and it has moved since."""
    member = (await walk.desk.members())[0]
    entry = walk.scene.data.registry.index.find(member)
    assert entry is not None
    walk.mute = frozenset({entry.contract.code})
    true = walk.scene.quote(entry.contract.code)
    assert true.bid is not None
    walk.scene.say(entry.contract.code, true._replace(bid=true.bid * Decimal("0.999")))


async def heal(walk: Walk) -> None:
    await walk.scene.live.heal()
    walk.is_stream_dead, walk.mute = False, frozenset()


FAULTS: Final[Mapping[str, Callable[[Walk], Awaitable[None]]]] = MappingProxyType(
    {
        "stream dead": stream_dead,
        "REST dead": rest_dead,
        "both dead": both_dead,
        "one topic dead": topic_dead,
    }
)
