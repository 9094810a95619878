"""Long tasks: restarted with back-off, reported, stopped in order."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from app.adapters.kucoin.limits import KucoinLimits
from app.domain.errors import Code, UnavailableError
from app.workers.backoff import full_jitter
from app.workers.supervisor import Beat, Supervisor, Work

START = datetime(2026, 11, 21, tzinfo=UTC)


class Bench:
    """A supervisor whose pauses pass at once and are noted."""

    def __init__(self) -> None:
        self.now = START
        self.pauses: list[float] = []
        self.restarts: list[str] = []
        self.supervisor = Supervisor(
            lambda: self.now, self.delays, self.restarts.append, self.sleep
        )

    @staticmethod
    def delays() -> Iterator[float]:
        return iter([0.5, 1.0, 2.0])

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_failing_task_is_restarted_with_growing_pauses(bench: Bench) -> None:
    attempts = 0

    async def work(beat: Beat) -> None:
        del beat
        nonlocal attempts
        attempts += 1
        if attempts <= 5:
            raise UnavailableError(Code.EXCHANGE_TIMEOUT, "no answer")

    bench.supervisor.start("feed", work)
    await bench.supervisor.wait("feed")
    assert bench.pauses == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert bench.restarts == ["feed"] * 5
    assert bench.supervisor.facts() == ()  # it has done its work


async def test_facts_tell_success_error_and_failures(bench: Bench) -> None:
    steps = asyncio.Event()

    async def work(beat: Beat) -> None:
        beat()
        await steps.wait()
        steps.clear()
        raise ZeroDivisionError("a secret")

    bench.supervisor.start("scoring", work)
    await asyncio.sleep(0)
    (fact,) = bench.supervisor.facts()
    assert (fact.name, fact.running, fact.last_success, fact.last_error, fact.failures) == (
        "scoring", True, START, None, 0,
    )  # fmt: skip
    bench.pauses.clear()
    steps.set()
    while not bench.pauses:
        await asyncio.sleep(0)
    (fact,) = bench.supervisor.facts()
    assert (fact.running, fact.last_error, fact.failures) == (True, "ZeroDivisionError", 1)
    for _ in range(5):  # it runs again and succeeds: the error is over
        await asyncio.sleep(0)
    (fact,) = bench.supervisor.facts()
    assert (fact.last_error, fact.failures) == (None, 0)
    assert fact.last_success == START + timedelta(seconds=0.5)
    await bench.supervisor.stop()


async def test_a_success_in_between_starts_the_pauses_anew(bench: Bench) -> None:
    attempts = 0

    async def work(beat: Beat) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            beat()
        if attempts <= 4:
            raise UnavailableError(Code.EXCHANGE_TIMEOUT, "no answer")

    bench.supervisor.start("feed", work)
    await bench.supervisor.wait("feed")
    assert bench.pauses == [0.5, 1.0, 0.5, 1.0]


async def test_stops_the_youngest_first_and_waits_for_each(bench: Bench) -> None:
    ended: list[str] = []

    def lasting(name: str) -> None:
        async def work(beat: Beat) -> None:
            del beat
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(name)

        bench.supervisor.start(name, work)

    for name in ("first", "second", "third"):
        lasting(name)
    with pytest.raises(ValueError, match="second"):
        lasting("second")
    await asyncio.sleep(0)
    await bench.supervisor.stop()
    assert ended == ["third", "second", "first"]
    assert bench.supervisor.facts() == ()
    await bench.supervisor.stop()


async def test_a_finished_name_may_start_again(bench: Bench) -> None:
    runs = 0

    async def work(beat: Beat) -> None:
        del beat
        nonlocal runs
        runs += 1

    for _ in range(2):
        bench.supervisor.start("once", work)
        await bench.supervisor.wait("once")
    assert runs == 2


async def test_tasks_can_be_ended_one_by_one_and_begun_again(bench: Bench) -> None:
    ended: list[str] = []

    def work(name: str) -> Work:
        async def run(beat: Beat) -> None:
            beat()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        return run

    supervisor = bench.supervisor
    for name in ("one", "two", "three"):
        supervisor.start(name, work(name))
    await asyncio.sleep(0)
    await supervisor.end("two", "three", "never begun")
    assert ended == ["two", "three"]
    assert [fact.name for fact in supervisor.facts()] == ["one"]
    supervisor.start("two", work("two"))
    await asyncio.sleep(0)
    await supervisor.stop()
    assert ended == ["two", "three", "two", "one"]


def test_what_was_away_is_taken_up_again_within_half_a_minute_of_its_return() -> None:
    longest = list(islice(full_jitter(lambda _, ceiling: ceiling), 20))
    assert longest[:4] == [0.5, 1.0, 2.0, 4.0]
    assert KucoinLimits().breaker_probe_s + max(longest) < 25.0
