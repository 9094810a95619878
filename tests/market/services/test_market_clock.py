"""The exchange's clock as we know it: samples, their median, and clocks that are set."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from app.market.services.exchange_clock import ServerClock
from app.market.services.ports import Exchange

START = datetime(2026, 3, 1, tzinfo=UTC)
START_MS = START.timestamp() * 1000


@dataclass
class Exchanges:
    """An exchange whose clock is `ahead_ms` of true time and whose answers take their time."""

    ahead_ms: float = 0.0
    there_s: float = 0.0
    back_s: float = 0.0
    passed_s: float = 0.0
    host_off: timedelta = field(default_factory=timedelta)

    async def server_time_ms(self) -> int:
        self.passed_s += self.there_s
        told = START_MS + self.passed_s * 1000 + self.ahead_ms
        self.passed_s += self.back_s
        return round(told)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed_s) + self.host_off

    def monotonic(self) -> float:
        return 77.0 + self.passed_s

    def clock(self) -> ServerClock:
        return ServerClock(cast("Exchange", self), self.now, self.monotonic)

    def true_ms(self) -> float:
        return START_MS + self.passed_s * 1000 + self.ahead_ms


@pytest.mark.parametrize("off_s", [-6.0, 6.0, 0.0])
async def test_T01_a_host_clock_that_is_off_is_known_by_how_much(off_s: float) -> None:
    world = Exchanges(there_s=0.05, back_s=0.05, host_off=timedelta(seconds=-off_s))
    clock = world.clock()
    await clock.sync()
    assert clock.offset_s() == pytest.approx(off_s, abs=0.01)
    assert clock.min_offset_s() == pytest.approx(max(0.0, abs(off_s) - 0.05), abs=0.01)
    assert clock.now_ms() == pytest.approx(world.true_ms(), abs=2)


async def test_T01_one_slow_answer_among_five_moves_nothing() -> None:
    world = Exchanges(there_s=0.02, back_s=0.02)
    clock = world.clock()
    for number in range(5):
        world.there_s, world.back_s = (3.0, 0.02) if number == 4 else (0.02, 0.02)
        await clock.sync()
        world.passed_s += 60
    assert clock.now_ms() == pytest.approx(world.true_ms(), abs=5)
    assert clock.uncertainty_s == pytest.approx(0.02)


async def test_T01_a_time_that_took_more_than_two_seconds_is_not_safe_and_asked_for_again() -> None:
    world = Exchanges(there_s=1.0, back_s=1.0)
    clock = world.clock()
    assert not clock.is_safe, "it was never asked for"
    await clock.sync()
    assert (clock.is_safe, world.passed_s) == (True, 2.0)
    world = Exchanges(there_s=1.01, back_s=1.0)
    clock = world.clock()
    await clock.sync()
    assert not clock.is_safe
    assert world.passed_s == pytest.approx(5 * 2.01)
    world.there_s = world.back_s = 0.01
    await clock.sync()
    assert clock.is_safe


@pytest.mark.parametrize("step_ms", [3_600_000.0, -3_600_000.0, 900.0])
async def test_T01_a_clock_that_the_exchange_sets_is_followed_at_once(step_ms: float) -> None:
    world = Exchanges(there_s=0.02, back_s=0.02)
    clock = world.clock()
    for _ in range(5):
        await clock.sync()
        world.passed_s += 60
    world.ahead_ms = step_ms
    await clock.sync()
    assert clock.now_ms() == pytest.approx(world.true_ms(), abs=5)


@pytest.mark.parametrize("step_h", [-1, 1])
async def test_T03_a_step_of_our_clock_moves_no_time_of_the_exchange(step_h: int) -> None:
    world = Exchanges(there_s=0.02, back_s=0.02)
    clock = world.clock()
    await clock.sync()
    before = clock.now_ms()
    world.host_off = timedelta(hours=step_h)
    assert clock.now_ms() == before
    world.passed_s += 30
    assert clock.now_ms() == before + 30_000
