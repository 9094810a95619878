"""No task of the owner of the feed is silent for ever: it is named, ended and begun again."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest

from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.container.feed import FeedTasks
from app.foundation.data_status import DataStatus
from app.foundation.event_bus import Bus
from app.foundation.ports import Jobs
from app.foundation.sql.database import Database
from app.market.domain.stream import BarUpdate, MarketUpdate, StreamTopic, TopicKind
from app.market.services.reference_prices import ReferencePriceFeed, ReferenceSource
from app.market.services.service import MarketData
from app.market.services.service_mode import CurrentMode, MarketLevel
from app.market.services.shared_market import FeedOwnership
from app.market.services.state import FillQueue
from app.market.services.stream_consumer import StreamConsumer
from app.my_symbols import MySymbolsServiceV2
from app.scoring.domain.events import ScoresUpdated
from app.settings import ProcessRole
from app.workers.reactions import ALERT_REACTIONS, DRIFT_REACTIONS, alert_reactions, drift_reactions
from app.workers.schedule import EXCHANGE_SILENT_S, FIRST_FILL
from app.workers.supervisor import CHECK_INTERVAL_S, Heartbeat, Supervisor
from tests.operations.api.test_system import opened
from tests.operations.services.test_status import LINK, World
from tests.workers.test_schedule import Desk as Counters

T0 = datetime(2026, 11, 21, tzinfo=UTC)
PATIENCE_S = 30.0


@dataclass
class Hang:
    """A call that never returns, the first time."""

    asked: int = 0
    never: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, *_: object, **__: object) -> Any:
        self.asked += 1
        if self.asked == 1:
            await self.never.wait()
        return {}


@dataclass
class Part:
    """Stands for a part of the service of which little is used."""

    hang: Hang
    mode: CurrentMode = field(
        default_factory=lambda: CurrentMode(lambda: MarketLevel(DataStatus.FRESH, 0))
    )
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    exchange: None = None
    live: Any = field(default_factory=lambda: SimpleNamespace(market=None, stamps=lambda: None))

    async def run(self, *_: object) -> Any:
        return await self.hang()

    async def refresh_candles(self) -> None:
        await self.hang()

    async def prices(self) -> Any:
        return await self.hang()

    async def updates(self) -> Any:
        return await self.hang()

    async def close_stream(self) -> None:
        """It goes at once."""

    def level(self) -> MarketLevel:
        return MarketLevel(DataStatus.FRESH, 0)

    def latest(self) -> None:
        return None

    def now_ms(self) -> int:
        return 10_000

    def monotonic(self) -> float:
        return 0.0

    def apply_reference_prices(self, _: object) -> None:
        """It had nothing to tell."""

    @property
    def server_clock(self) -> "Part":
        return self

    async def calculate(self) -> None:
        raise AssertionError("there is nothing to score")


@dataclass
class Face:
    """The part of the service that the owner's tasks use."""

    market: Part
    status: Part
    scoring: Part


@dataclass
class Owner:
    """The tasks of the owner of the feed, as they are put together, one of which hangs."""

    hang: Hang = field(default_factory=Hang)
    bus: Bus = field(default_factory=Bus)
    supervisor: Supervisor = field(init=False)
    restarts: list[str] = field(default_factory=list)
    streamed: StreamConsumer = field(init=False)
    bars: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(
            lambda: T0, lambda: iter([0.0]), self.restarts.append, self.sleep
        )

    async def sleep(self, _: float) -> None:
        await asyncio.sleep(0)

    def begin(self, name: str) -> None:
        """All of them; `name` is the one that hangs."""

        def part(own: str) -> Part:
            return Part(self.hang if own == name else Hang(asked=1))

        async def fill(beat: Heartbeat) -> None:
            if name == FIRST_FILL:
                await self.hang()
            beat()
            await asyncio.Event().wait()  # it goes on

        async def check_silence() -> None:
            if name == ALERT_REACTIONS:
                await self.hang()

        async def drifted() -> bool:
            if name == DRIFT_REACTIONS:
                await self.hang()
            return False

        async def nobody() -> tuple[str, ...]:
            return ()

        counters = Counters()
        counters.work = replace(counters.work, first_fill=fill)
        bars, market = part("stream_bars"), part("market")
        self.streamed = StreamConsumer(
            cast("MarketData", bars), cast("Any", Part(Hang())), nobody, idle_s=0.01
        )
        FeedTasks(
            ProcessRole.ALL,
            cast("Database", part("mode")),
            cast("MySymbolsServiceV2", Face(market, market, market)),
            FeedOwnership(lambda: LINK),
            self.supervisor,
            (),
            counters.work,
            {
                ALERT_REACTIONS: alert_reactions(
                    self.bus, lambda: T0, check_silence, asyncio.Event().wait, idle_s=0.01
                ),
                DRIFT_REACTIONS: drift_reactions(
                    self.bus, drifted, cast("Jobs", Part(Hang())), idle_s=0.01
                ),
            },
            self.streamed,
        )._begin()
        if name.startswith("reference"):
            source = cast("ReferenceSource", part(name))
            asking = ReferencePriceFeed(source, cast("Any", Part(Hang())), lambda: True, 60.0)
            work = asking.run if name == "reference" else asking.run_stream
            self.supervisor.start(name, work, lambda: 60.0 + EXCHANGE_SILENT_S)

    def tell(self) -> None:
        """Wakes the tasks that wait for an event."""
        self.bus.publish(ConfigurationChanged(Configuration(), T0))
        self.bus.publish(ScoresUpdated("run", T0, 1, 0, 0.1, T0))
        topic = StreamTopic(TopicKind.HOUR_BAR, "XBTUSDTM")
        for _ in range(2):
            self.streamed.on_updates([MarketUpdate(topic, BarUpdate(next(self.bars)), 0, 0.0)])


async def component(client: httpx2.AsyncClient, world: World, owner: Owner, name: str) -> Any:
    world.tasks = owner.supervisor.facts()
    health = (await client.get("/api/symbol-mgmt/health")).json()
    return next(one for one in health["components"] if one["name"] == f"task:{name}")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "name",
    [
        FIRST_FILL,
        ALERT_REACTIONS,
        DRIFT_REACTIONS,
        "mode",
        "stream_bars",
        "reference",
        "reference_stream",
    ],
)
async def test_E12_a_task_that_hangs_is_named_in_health_ended_and_begun_again(name: str) -> None:
    owner, world = Owner(), World()
    owner.begin(name)
    await asyncio.sleep(0)
    owner.tell()
    await until(lambda: owner.hang.asked == 1)
    limit_s = next(one.limit_s for one in owner.supervisor.facts() if one.name == name)
    assert limit_s is not None
    async with opened(world) as client:
        owner.supervisor.check_silence(limit_s / 2)
        assert (await component(client, world, owner, name))["state"] == "up"
        owner.supervisor.check_silence(CHECK_INTERVAL_S)
        silent = await component(client, world, owner, name)
        assert (silent["state"], silent["cause"]) == ("degraded", "task_silent")
        assert silent["detail"] == f"no heartbeat for {limit_s / 2 + CHECK_INTERVAL_S:.0f} s"
        assert silent["next_step"].startswith("is restarted in")
        owner.supervisor.check_silence(limit_s / 2)
        await until(lambda: name in owner.restarts)
        owner.tell()  # who listens goes on to listen
        await until(lambda: owner.hang.asked == 2 or name == FIRST_FILL)
        await until(lambda: not _failed(owner, name))
        assert (await component(client, world, owner, name))["state"] == "up"
    await owner.supervisor.stop()


def _failed(owner: Owner, name: str) -> bool:
    return any(one.name == name and one.last_error for one in owner.supervisor.facts())


async def test_idle_tasks_send_heartbeats() -> None:
    owner = Owner()
    owner.begin("nobody")
    for name in (ALERT_REACTIONS, DRIFT_REACTIONS, "stream_bars"):
        owner.supervisor.check_silence(1.0)
        await until(partial(_has_beaten, owner, name))
    assert owner.restarts == []
    await owner.supervisor.stop()


def _has_beaten(owner: Owner, name: str) -> bool:
    return any(one.name == name and one.silent_s == 0.0 for one in owner.supervisor.facts())


async def test_a_wait_for_another_fill_reports_its_progress() -> None:
    filling, heard = FillQueue(), list[str]()
    began = asyncio.Event()

    async def second() -> None:
        began.set()
        async with filling.wait_turn(lambda stage, *_: heard.append(f"second: {stage}")):
            filling.report("books", 1, 1)

    async with filling.wait_turn(lambda stage, *_: heard.append(f"first: {stage}")):
        waiting = asyncio.ensure_future(second())
        await began.wait()
        filling.report("contracts", 1, 1)
    await waiting
    filling.report("complete", 1, 1)
    assert heard == ["first: contracts", "second: contracts", "second: books"]
