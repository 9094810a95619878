"""Long tasks: restarted with back-off, reported, stopped in order."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from app.adapters.kucoin.limiter import KucoinLimits
from app.foundation.backoff import full_jitter
from app.foundation.errors import Code, UnavailableError
from app.workers.schedule import TURN_S, ScheduledTask, begin
from app.workers.supervisor import Heartbeat, Supervisor, Work

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


def patient() -> float:
    return 60.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_failing_task_is_restarted_with_growing_pauses(bench: Bench) -> None:
    attempts = 0

    async def work(beat: Heartbeat) -> None:
        del beat
        nonlocal attempts
        attempts += 1
        if attempts <= 5:
            raise UnavailableError(Code.EXCHANGE_TIMEOUT, "no answer")

    bench.supervisor.start("feed", work, patient)
    await bench.supervisor.wait("feed")
    assert bench.pauses == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert bench.restarts == ["feed"] * 5
    assert bench.supervisor.facts() == ()  # it has done its work


async def test_facts_tell_success_error_and_failures(bench: Bench) -> None:
    steps = asyncio.Event()

    async def work(beat: Heartbeat) -> None:
        beat()
        await steps.wait()
        steps.clear()
        raise ZeroDivisionError("a secret")

    bench.supervisor.start("scoring", work, patient)
    await asyncio.sleep(0)
    (fact,) = bench.supervisor.facts()
    assert (fact.name, fact.running, fact.last_success_at, fact.last_error, fact.failures) == (
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
    assert fact.last_success_at == START + timedelta(seconds=0.5)
    await bench.supervisor.stop()


async def test_a_success_in_between_starts_the_pauses_anew(bench: Bench) -> None:
    attempts = 0

    async def work(beat: Heartbeat) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            beat()
        if attempts <= 4:
            raise UnavailableError(Code.EXCHANGE_TIMEOUT, "no answer")

    bench.supervisor.start("feed", work, patient)
    await bench.supervisor.wait("feed")
    assert bench.pauses == [0.5, 1.0, 0.5, 1.0]


async def test_stops_the_youngest_first_and_waits_for_each(bench: Bench) -> None:
    ended: list[str] = []

    def lasting(name: str) -> None:
        async def work(beat: Heartbeat) -> None:
            del beat
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(name)

        bench.supervisor.start(name, work, patient)

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

    async def work(beat: Heartbeat) -> None:
        del beat
        nonlocal runs
        runs += 1

    for _ in range(2):
        bench.supervisor.start("once", work, patient)
        await bench.supervisor.wait("once")
    assert runs == 2


async def test_tasks_can_be_ended_one_by_one_and_begun_again(bench: Bench) -> None:
    ended: list[str] = []

    def work(name: str) -> Work:
        async def run(beat: Heartbeat) -> None:
            beat()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        return run

    supervisor = bench.supervisor
    for name in ("one", "two", "three"):
        supervisor.start(name, work(name), patient)
    await asyncio.sleep(0)
    await supervisor.end("two", "three", "never begun")
    assert ended == ["two", "three"]
    assert [fact.name for fact in supervisor.facts()] == ["one"]
    supervisor.start("two", work("two"), patient)
    await asyncio.sleep(0)
    await supervisor.stop()
    assert ended == ["two", "three", "two", "one"]


async def test_an_outage_that_comes_out_of_a_group_of_tasks_is_an_outage_and_no_bug(
    bench: Bench,
) -> None:
    attempts = 0
    away = UnavailableError(Code.DATABASE_UNAVAILABLE, "away")

    async def work(beat: Heartbeat) -> None:
        del beat
        nonlocal attempts
        attempts += 1
        if attempts <= 20:
            raise ExceptionGroup("of a group", [away, ExceptionGroup("within", [away])])

    bench.supervisor.start("notifications", work, patient)
    await bench.supervisor.wait("notifications")
    assert (attempts, max(bench.pauses)) == (21, 2.0), "it never rests as who fails by a bug"


async def test_who_is_told_to_stop_and_fails_at_that_is_not_begun_again(bench: Bench) -> None:
    begun = 0

    async def work(beat: Heartbeat) -> None:
        nonlocal begun
        begun += 1
        beat()
        try:
            await asyncio.Event().wait()
        finally:  # as who writes down what it has, and may not any more
            raise UnavailableError(Code.MARKET_DATA_STALE, "another owns the feed")

    for is_all in (False, True):
        begun = 0
        bench.supervisor.start("fill", work, patient)
        while not begun:
            await asyncio.sleep(0)
        async with asyncio.timeout(60.0):
            await (bench.supervisor.stop() if is_all else bench.supervisor.end("fill"))
        assert begun == 1
    bench.supervisor.start("fill", work, lambda: 0.0)
    while begun < 2:
        await asyncio.sleep(0)
    bench.supervisor.check_silence(1.0)  # a silent task is ended and begins again
    while begun < 3:
        await asyncio.sleep(0)
    await bench.supervisor.stop()


async def test_an_end_that_was_cut_off_is_brought_to_its_end_by_the_next(bench: Bench) -> None:
    gone: list[str] = []
    slow = asyncio.Event()

    def working(name: str) -> Work:
        async def work(beat: Heartbeat) -> None:
            beat()
            try:
                await asyncio.Event().wait()
            finally:
                if name == "slow":
                    with suppress(asyncio.CancelledError):
                        await slow.wait()
                gone.append(name)

        return work

    for name in ("slow", "other"):
        bench.supervisor.start(name, working(name), patient)
    while len(bench.supervisor.facts()) < 2 or not all(
        one.last_success_at for one in bench.supervisor.facts()
    ):
        await asyncio.sleep(0)
    ending = asyncio.ensure_future(bench.supervisor.end("slow", "other"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    assert "other" not in gone
    slow.set()
    await bench.supervisor.end("slow", "other")
    assert gone == ["slow", "other"]
    assert bench.supervisor.facts() == ()


def test_what_was_away_is_taken_up_again_within_half_a_minute_of_its_return() -> None:
    longest = list(islice(full_jitter(lambda: 1.0), 20))
    assert longest[:4] == [0.5, 1.0, 2.0, 4.0]
    assert KucoinLimits().breaker_probe_s + max(longest) < 25.0


class Stuck:
    """A task that beats once and then waits for what nobody will ever set."""

    def __init__(self, *, holds_on: bool = False) -> None:
        self.begun = 0
        self.holds_on = holds_on
        self.is_well = False
        self.never = asyncio.Event()

    async def __call__(self, beat: Heartbeat) -> None:
        self.begun += 1
        beat()
        while not self.is_well:
            try:
                await self.never.wait()
            except asyncio.CancelledError:
                if not self.holds_on:
                    raise
        beat()
        await asyncio.Event().wait()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_E12_a_task_that_makes_no_progress_is_named_ended_and_begun_again(
    bench: Bench,
) -> None:
    work = Stuck()
    bench.supervisor.start("events", work, lambda: 60.0)
    await turns()
    for _ in range(12):
        bench.supervisor.check_silence(5.0)
    (fact,) = bench.supervisor.facts()
    assert (fact.silent_s, fact.is_silent, fact.last_error, work.begun) == (60.0, True, None, 1)
    bench.supervisor.check_silence(5.0)
    assert bench.supervisor.facts()[0].last_error == "task_stuck"
    await turns()
    assert (work.begun, bench.restarts) == (2, ["events"])
    (fact,) = bench.supervisor.facts()
    assert (fact.silent_s, fact.is_silent, fact.last_error) == (0.0, False, None)  # it has beaten
    await bench.supervisor.stop()
    assert bench.supervisor.facts() == ()


async def test_E12_a_task_that_does_not_let_itself_be_ended_is_never_run_twice(
    bench: Bench,
) -> None:
    work = Stuck(holds_on=True)
    bench.supervisor.start("events", work, lambda: 60.0)
    await turns()
    for _ in range(40):
        bench.supervisor.check_silence(5.0)
        await turns()
    (fact,) = bench.supervisor.facts()
    assert (work.begun, fact.silent_s, fact.last_error) == (1, 200.0, "task_stuck")
    work.is_well = True
    work.never.set()
    await turns()
    (fact,) = bench.supervisor.facts()
    assert (work.begun, fact.silent_s, fact.last_error) == (1, 0.0, None)
    work.holds_on = False
    await bench.supervisor.stop()


async def test_silence_counts_neither_before_the_first_beat_of_a_gated_task_nor_in_a_pause(
    bench: Bench,
) -> None:
    gate, held = asyncio.Event(), asyncio.Event()

    async def gated(beat: Heartbeat) -> None:
        await gate.wait()
        beat()
        await asyncio.Event().wait()

    async def failing(beat: Heartbeat) -> None:
        del beat
        raise UnavailableError(Code.EXCHANGE_TIMEOUT, "no answer")

    async def long(_: float) -> None:
        await held.wait()

    bench.supervisor.sleep = long
    bench.supervisor.start("market", gated, lambda: 60.0, is_watchdog_enabled=False)
    bench.supervisor.start("funding", failing, lambda: 60.0)
    await turns()
    bench.supervisor.check_silence(1_000.0)
    assert [one.silent_s for one in bench.supervisor.facts()] == [0.0, 0.0]
    gate.set()
    await turns()
    bench.supervisor.check_silence(40.0)
    assert [one.silent_s for one in bench.supervisor.facts()] == [40.0, 0.0]
    await bench.supervisor.stop()


async def test_who_waits_for_a_database_that_is_known_to_be_away_is_not_stuck(
    bench: Bench,
) -> None:
    away = [True, True, False]
    bench.supervisor.is_paused = away.pop
    bench.supervisor.start("events", Stuck(), lambda: 60.0)
    beats = list[None]()

    async def watch() -> None:
        with pytest.raises(IndexError):  # the list of answers ends
            await bench.supervisor.watch(lambda: beats.append(None))

    await watch()
    (fact,) = bench.supervisor.facts()
    assert (fact.silent_s, len(beats)) == (5.0, 3)
    await bench.supervisor.stop()


async def test_E12_a_tick_that_never_ends_is_stuck_after_its_interval_and_a_turn() -> None:
    bench = Bench()
    begun = list[None]()

    async def hangs() -> None:
        begun.append(None)
        await asyncio.Event().wait()

    tick = ScheduledTask("alerts", lambda: 60.0, hangs)
    begin(bench.supervisor, [tick], lambda: 0.0)
    await turns()
    bench.supervisor.check_silence(60.0 + TURN_S)
    await turns()
    assert len(begun) == 1
    bench.supervisor.check_silence(1.0)
    await turns()
    assert (len(begun), bench.restarts) == (2, ["alerts"])
    await bench.supervisor.stop()
