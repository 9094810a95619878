"""U11: that nobody is told anything any more is seen by whoever asks."""

from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest

from app.alerts.services.monitor import AlertingHeartbeat
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.event_bus import Bus
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.operations.services.health_checks import ComponentHealth, ComponentState
from app.operations.services.process_metrics import buffer_usage
from tests.operations.services.test_status import NOW, World

# Where the database is no matter.
SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


class Post:
    """A process of its own over a database, with a clock that all share."""

    def __init__(self, world: World, database: Database, interval_s: float = 60.0) -> None:
        self.world, self.metrics = world, Metrics()
        self.pulse = AlertingHeartbeat(
            database,
            lambda: world.now,
            self.metrics,
            lambda: interval_s,
            world.now,
            world.monotonic,
        )

    async def component(self) -> ComponentHealth:
        self.world.pulse = self.pulse
        await self.pulse.refresh()
        health = await self.world.status().health()
        return next(one for one in health.components if one.name == "alerting")

    def silence(self, part: str) -> float:
        lines = self.metrics.render().decode().splitlines()
        wanted = f'mysymbols_alerting_silence_seconds{{component="{part}"}} '
        return next(float(line.removeprefix(wanted)) for line in lines if wanted in line)


async def test_U11_two_minutes_without_a_look_or_a_round_are_told(database: Database) -> None:
    world = World()
    post = Post(world, database)
    assert (await post.component()).state is ComponentState.STARTING
    await post.pulse.evaluated()
    await post.pulse.delivered()
    assert (await post.component()).state is ComponentState.UP
    world.now = NOW + timedelta(seconds=120)
    await post.pulse.evaluated()
    assert (await post.component()).state is ComponentState.UP
    world.now = NOW + timedelta(seconds=121)
    dead = await post.component()
    assert (dead.state, dead.cause) == (ComponentState.DOWN, "alerting_silent")
    assert (dead.since, dead.last_success_at) == (NOW, NOW)
    assert dead.detail == "evaluation 1 s ago, delivery 121 s ago"
    assert dead.next_step is not None
    assert (post.silence("evaluation"), post.silence("delivery")) == (1.0, 121.0)
    await post.pulse.delivered()
    assert (await post.component()).state is ComponentState.UP


@SQLITE
async def test_U11_who_never_begins_is_dead_after_two_minutes_too(database: Database) -> None:
    world = World()
    post = Post(world, database)
    world.now = NOW + timedelta(seconds=121)
    dead = await post.component()
    assert (dead.state, dead.since) == (ComponentState.DOWN, NOW)
    assert dead.detail == "no evaluation seen, no delivery seen"


@SQLITE
async def test_what_one_process_does_the_others_see(database: Database) -> None:
    world = World()
    worker, reader = Post(world, database), Post(world, database)
    for minute in range(5):
        world.now = NOW + timedelta(minutes=minute)
        await worker.pulse.evaluated()
        await worker.pulse.delivered()
    assert (await reader.component()).state is ComponentState.UP
    assert reader.silence("delivery") == 0.0


@SQLITE
@pytest.mark.parametrize("step_h", [1, -1, 24, -24])
async def test_T03_a_step_of_the_clock_neither_silences_alerting_nor_hides_its_silence(
    database: Database, step_h: int
) -> None:
    """Seen by the process that alerts and by another one, which knows it from the database."""
    world = World()
    worker, reader = Post(world, database), Post(world, database)
    posts = (worker, reader)

    async def beats() -> None:
        await worker.pulse.evaluated()
        await worker.pulse.delivered()

    async def states() -> list[ComponentState]:
        return [(await post.component()).state for post in posts]

    await beats()
    assert await states() == [ComponentState.UP] * 2
    for step in (timedelta(hours=step_h), timedelta(hours=-step_h)):
        world.now += timedelta(seconds=110)
        assert await states() == [ComponentState.UP] * 2
        world.now += timedelta(seconds=15)
        await beats()
        world.set_clock(step)  # before the other process has looked
        assert await states() == [ComponentState.UP] * 2
        assert worker.silence("delivery") == 0.0
        assert 0.0 <= reader.silence("delivery") <= 15.0, "it came since the last look"
        world.now += timedelta(seconds=20)
        await beats()  # stored under the new clock, maybe before what was stored last
        assert await states() == [ComponentState.UP] * 2
        assert [post.silence("evaluation") for post in posts] == [0.0] * 2
    world.set_clock(timedelta(hours=step_h))
    world.now += timedelta(seconds=121)
    assert await states() == [ComponentState.DOWN] * 2
    assert [post.silence("delivery") for post in posts] == [121.0] * 2


@SQLITE
async def test_rules_that_are_looked_at_seldom_are_not_silent(database: Database) -> None:
    world = World()
    post = Post(world, database, interval_s=600.0)
    await post.pulse.evaluated()
    world.now = NOW + timedelta(seconds=1_200)
    await post.pulse.delivered()
    assert (await post.component()).state is ComponentState.UP
    world.now += timedelta(seconds=1)
    assert (await post.component()).state is ComponentState.DOWN


async def test_without_a_database_what_is_known_stays() -> None:
    class Away:
        def read(self) -> object:
            raise UnavailableError(Code.DATABASE_UNAVAILABLE, "away")

        write = read

    post = Post(World(), cast("Database", Away()))
    await post.pulse.evaluated()
    await post.pulse.delivered()
    assert (await post.component()).state is ComponentState.UP


async def test_levels_are_the_share_of_looks_at_which_all_was_well() -> None:
    world, seconds = World(), 0.0
    status = world.status()
    status.levels.monotonic = lambda: seconds
    assert (await status.health()).levels == ()
    for look in range(1_440):
        seconds = look * 30.0  # half a day
        down = look >= 1_380  # the last half hour
        world.market = replace(
            world.market, data_status=DataStatus.UNAVAILABLE if down else DataStatus.FRESH
        )
        await status.observe()
    levels = {(one.name, one.window_s): one for one in (await status.health()).levels}
    hour, day = levels["feed_uptime", 3_600], levels["feed_uptime", 86_400]
    assert hour.share == pytest.approx(0.5, abs=0.02)
    assert day.samples == 1_440
    assert day.share == pytest.approx(1_380 / 1_440)
    assert levels["decision_freshness", 3_600].share == hour.share
    seconds += 86_400
    assert {one.share for one in (await status.health()).levels} == {None}


async def test_throughput_is_of_the_last_minute() -> None:
    status, seconds, count = World().status(), 0.0, 0.0
    process = status.process
    process.monotonic, process.read_counters = (lambda: seconds), (lambda: {"requests": count})
    assert [one.per_minute for one in process.read().throughput] == [None]
    for look in range(100):
        seconds, count = look * 5.0, look * 50.0
        await status.observe()
        rate = (await status.health()).process.throughput[0].per_minute
        assert rate == (None if look == 0 else 600.0)
    seconds += 60.0  # nothing comes any more
    await status.observe()
    assert (await status.health()).process.throughput[0].per_minute == 0.0
    assert len(process._samples) < 15
    count += 1_000.0  # it is added up once a second
    assert process.read().throughput[0].per_minute == 0.0
    seconds += 1.0
    assert (process.read().throughput[0].per_minute or 0.0) > 0.0
    memory = process.read().memory_bytes
    assert memory is None or memory > 10_000_000


@SQLITE
async def test_health_says_how_full_the_buffers_are(database: Database) -> None:
    status, bus = World().status(), Bus(capacity=3)
    status.process.buffers = buffer_usage(bus, database)

    async def filled() -> dict[str, tuple[int, int, int | None]]:
        found = (await status.health()).process.buffers
        return {one.name: (one.used, one.capacity, one.dropped) for one in found}

    most = database.pool.size
    assert await filled() == {"bus": (0, 3, 0), "database_connections": (0, most, None)}
    with bus.subscribe() as slow, bus.subscribe() as quick:
        for number in range(5):
            bus.publish(number)
        for _ in range(3):
            await anext(quick)
        async with database.read(), database.write():
            assert await filled() == {"bus": (3, 3, 4), "database_connections": (2, most, None)}
        assert await anext(slow) == 2, "what is dropped is the oldest"
    assert await filled() == {"bus": (0, 3, 4), "database_connections": (0, most, None)}


async def test_each_component_says_since_when_it_is_in_its_state() -> None:
    world = World()
    status = world.status()
    await status.observe()
    world.now = NOW + timedelta(minutes=1)
    world.market = replace(world.market, data_status=DataStatus.STALE)
    await status.observe()
    world.now = NOW + timedelta(minutes=5)
    parts = {one.name: one for one in (await status.health()).components}
    assert parts["market_data"].since == NOW + timedelta(minutes=1)
    assert parts["market_data"].next_step is not None
    assert parts["scoring"].since == NOW
