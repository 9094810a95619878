"""One run per slot of time, whoever asks; over a real engine, on a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from app.foundation.errors import Code, UnavailableError
from app.foundation.jobs import Document, JobKind, JobState
from app.foundation.ports import Journal
from app.workers.durable import DurableRun
from app.workers.engine import Engine
from app.workers.schedule import OncePerSlotTask
from tests.workers.engines import engine_at

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
KIND = JobKind.REBALANCE_CHECK
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)


@dataclass
class Desk:
    """Ticks of one kind by several processes over one engine."""

    now: datetime = NOON
    passed_s: float = 0.0
    interval_s: float = 3600.0
    failures: list[Exception] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    engine: Engine | None = None

    def __post_init__(self) -> None:
        self.go_on.set()

    async def work(self, journal: Journal, payload: Document) -> Document:
        async def check() -> Document:
            await self.go_on.wait()
            if self.failures:
                raise self.failures.pop()
            self.slots.append(str(payload["scheduled_at"]))
            return {}

        return await journal.step("check", check)

    def tick(self) -> OncePerSlotTask:
        assert self.engine is not None
        return OncePerSlotTask(
            KIND, lambda: self.interval_s, self.engine, lambda: self.now, lambda: self.passed_s
        )

    def later(self, **by: float) -> None:
        self.now += timedelta(**by)
        self.passed_s += timedelta(**by).total_seconds()

    def set_clock(self, **by: float) -> None:
        self.now += timedelta(**by)

    async def names(self) -> set[str]:
        assert self.engine is not None
        return {job.run_id for job in await self.engine.jobs()}


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    desk = Desk()
    async with engine_at(database_url, [DurableRun(KIND.value, ("check",), desk.work)]) as engine:
        desk.engine = engine
        yield desk


async def test_C15_every_process_ticks_and_each_slot_runs_once(desk: Desk) -> None:
    desk.later(minutes=7)
    ticks = [desk.tick() for _ in range(3)]
    await asyncio.gather(*(tick.run() for tick in ticks))
    desk.later(minutes=20)
    await asyncio.gather(*(tick.run() for tick in ticks))
    desk.later(minutes=40)
    await asyncio.gather(*(tick.run() for tick in ticks))
    assert desk.slots == ["2026-03-29T12:00:00+00:00", "2026-03-29T13:00:00+00:00"]
    assert await desk.names() == {
        "rebalance_check:2026-03-29T12:00:00Z:1",
        "rebalance_check:2026-03-29T13:00:00Z:1",
    }


async def test_after_a_restart_a_slot_that_was_done_is_not_done_again(desk: Desk) -> None:
    await desk.tick().run()
    await desk.tick().run()
    assert len(desk.slots) == 1


async def test_a_slot_that_failed_is_tried_again_until_it_is_done(desk: Desk) -> None:
    stale = UnavailableError(Code.MARKET_DATA_STALE, "stale")
    desk.failures = [ValueError("a bug"), stale]
    tick, peer = desk.tick(), desk.tick()
    with pytest.raises(UnavailableError) as first:
        await tick.run()
    with pytest.raises(UnavailableError) as second:
        await tick.run()
    await tick.run()
    assert [first.value.code, second.value.code] == [Code.MARKET_DATA_STALE, Code.INTERNAL_ERROR]
    assert len(desk.slots) == 1
    for _ in range(2):  # the other process sees what became of each attempt
        with pytest.raises(UnavailableError):
            await peer.run()
    await peer.run()
    assert len(desk.slots) == 1
    assert len(await desk.names()) == 3


async def test_a_slot_that_comes_while_the_last_one_is_running_is_passed_over(desk: Desk) -> None:
    desk.go_on.clear()
    first = asyncio.ensure_future(desk.tick().run())
    while not await desk.names():
        await asyncio.sleep(0.01)
    desk.later(hours=1)
    second = asyncio.ensure_future(desk.tick().run())
    await asyncio.sleep(0.2)
    desk.go_on.set()
    await asyncio.gather(first, second)
    assert desk.slots == ["2026-03-29T12:00:00+00:00"]


async def test_a_cancelled_one_is_over(desk: Desk) -> None:
    assert desk.engine is not None
    desk.go_on.clear()
    waiting = asyncio.ensure_future(desk.tick().run())
    while not await desk.names():
        await asyncio.sleep(0.01)
    (name,) = await desk.names()
    job = await desk.engine.cancel(name)
    await waiting
    assert job.state is JobState.CANCELLED
    desk.go_on.set()
    await desk.tick().run()
    assert desk.slots == []


async def test_how_long_until_the_next_slot(desk: Desk) -> None:
    tick = desk.tick()
    desk.later(minutes=7)
    assert tick.left_s() == 0.0, "nothing was done yet"
    await tick.run()
    assert tick.left_s() == 53 * 60
    desk.later(minutes=53)
    assert tick.left_s() == 0.0
    await tick.run()
    assert tick.left_s() == 3600


async def test_a_changed_interval_counts_at_once(desk: Desk) -> None:
    tick = desk.tick()
    desk.later(minutes=7)
    await tick.run()
    desk.interval_s = 300.0
    assert tick.left_s() == 0.0
    await tick.run()
    assert tick.left_s() == 180.0
    desk.interval_s = 86_400.0
    assert tick.left_s() == (11 * 60 + 53) * 60, "a day that began before is not another tick"


STEPS = pytest.mark.parametrize(
    "steps",
    [[1], [-1], [24], [-24], [1, -1], [-1, 1], [24, -24], [-24, 24], [0.7], [-0.7], [0.7, -0.7]],
    ids=str,
)


@STEPS
async def test_T03_a_clock_that_is_set_skips_and_doubles_nothing(
    desk: Desk, steps: list[float]
) -> None:
    """Five hours of one process, looked at every ten minutes; the clock is set on the way."""
    desk.now = NOON + timedelta(minutes=7)
    tick, ran = desk.tick(), []
    moments = dict(zip((13, 22), steps, strict=False))
    for turn in range(31):
        if tick.left_s() == 0:
            before = len(desk.slots)
            await tick.run()
            assert len(desk.slots) == before + 1, "a run that was asked for is carried out"
            ran.append(desk.passed_s / 60)
        desk.set_clock(hours=moments.get(turn, 0.0))
        assert tick.left_s() <= 90 * 60
        desk.later(minutes=10)
    gaps = [later - earlier for earlier, later in pairwise(ran[1:])]
    assert len(set(desk.slots)) == len(desk.slots), "each is a moment of its own"
    assert ran[0] == 0
    if all(step % 1 == 0 for step in steps):
        assert gaps == [60] * 4
    else:
        assert all(30 <= gap <= 90 for gap in gaps)
        assert len(ran) in {5, 6, 7}


async def test_T03_a_process_begun_on_a_clock_set_back_a_day_runs_no_slot_again(
    desk: Desk,
) -> None:
    """Its predecessor has run them; the processes that lived through it agree on further rounds."""
    old, peer = desk.tick(), desk.tick()
    for _ in range(3):
        await asyncio.gather(old.run(), peer.run())
        desk.later(hours=1)
    desk.set_clock(hours=-2)  # at three it is one again
    fresh = desk.tick()
    await asyncio.gather(old.run(), peer.run(), fresh.run())
    assert desk.slots[3:] == ["2026-03-29T13:00:00.000001+00:00"]
    desk.later(hours=2)
    await asyncio.gather(old.run(), peer.run(), fresh.run())
    assert desk.slots[4:] == ["2026-03-29T15:00:00+00:00"]


async def test_T03_slots_of_an_earlier_process_are_no_reason_to_stop(desk: Desk) -> None:
    for _ in range(3):
        await desk.tick().run()
        desk.later(hours=1)
    tick = desk.tick()
    await tick.run()
    desk.later(minutes=60)
    desk.set_clock(hours=-3)
    assert tick.left_s() == 0
    await tick.run()
    assert desk.slots[4:] == ["2026-03-29T13:00:00.000001+00:00"]


async def test_T03_a_trifle_by_which_the_clocks_part_is_waited_for(desk: Desk) -> None:
    tick = desk.tick()
    await tick.run()
    desk.later(minutes=59)
    desk.set_clock(seconds=-3)
    assert tick.left_s() == 63
    desk.later(seconds=60)
    assert tick.left_s() == 3
    desk.later(seconds=3)
    await tick.run()
    desk.set_clock(seconds=-2)
    assert tick.left_s() == 3602
    await tick.run()
    assert desk.slots == ["2026-03-29T12:00:00+00:00", "2026-03-29T13:00:00+00:00"]


async def test_T07_a_day_with_a_change_of_summer_time_has_24_hourly_slots(desk: Desk) -> None:
    desk.now = NOON.replace(hour=0)
    tick = desk.tick()
    for _ in range(24 * 3):
        await tick.run()
        desk.later(minutes=20)
    assert desk.slots == [f"2026-03-29T{hour:02}:00:00+00:00" for hour in range(24)]
