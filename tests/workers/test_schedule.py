"""Ticks: from start to start, late means once, a changed interval counts at once."""

import asyncio
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from itertools import repeat as forever
from typing import cast

import pytest

from app.configuration.domain.model import IntervalSettings
from app.foundation.errors import UnavailableError
from app.foundation.jobs import Document, Enqueued, Job, JobKind, JobState
from app.foundation.ports import Jobs, StepJournal
from app.workers.durable import DurableRun
from app.workers.schedule import (
    CHECK_INTERVAL_S,
    ScheduledTask,
    Tasks,
    create_schedule,
    repeat,
    start_feed_tasks,
    start_tasks,
)
from app.workers.supervisor import Supervisor
from tests.workers.engines import engine_at


class EnoughError(Exception):
    """The test has seen enough."""


class Runs:
    """Notes when a tick ran on a clock that only sleeping and working move."""

    def __init__(self, wanted: int, takes: float = 0.0) -> None:
        self.now, self.wanted, self.takes = 100.0, wanted, takes
        self.at: list[float] = []
        self.beats = 0

    async def run(self) -> None:
        if len(self.at) == self.wanted:
            raise EnoughError
        self.at.append(self.now)
        self.now += self.takes

    def beat(self) -> None:
        self.beats += 1

    async def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= CHECK_INTERVAL_S
        self.now += seconds

    async def follow(self, tick: ScheduledTask) -> list[float]:
        with pytest.raises(EnoughError):
            await repeat(tick, self.beat, lambda: self.now, self.sleep)
        assert self.beats == self.wanted
        return self.at


async def test_runs_at_once_and_then_from_start_to_start() -> None:
    runs = Runs(4, takes=3.0)
    assert await runs.follow(ScheduledTask("market", lambda: 60.0, runs.run)) == [
        100.0,
        160.0,
        220.0,
        280.0,
    ]


async def test_a_late_tick_runs_once_not_several_times() -> None:
    runs = Runs(3, takes=150.0)
    assert await runs.follow(ScheduledTask("market", lambda: 60.0, runs.run)) == [
        100.0,
        250.0,
        400.0,
    ]


async def test_a_shorter_interval_takes_effect_without_waiting_out_the_old_one() -> None:
    interval = 86_400.0
    runs = Runs(3)

    async def run() -> None:
        await runs.run()
        nonlocal interval
        runs.now += 1.0
        interval = 30.0

    assert await runs.follow(ScheduledTask("scoring", lambda: interval, run)) == [
        100.0,
        130.0,
        160.0,
    ]


async def test_waits_for_its_gate() -> None:
    runs, opened = Runs(1), []

    async def gate() -> None:
        opened.append(runs.now)
        runs.now += 40.0

    assert await runs.follow(ScheduledTask("scoring", lambda: 1.0, runs.run, gate)) == [140.0]
    assert opened == [100.0]


def noon() -> datetime:
    return datetime(2026, 1, 1, 12, tzinfo=UTC)


class Durable:
    """Carries a durable run out on the spot; test_engine.py shows the real one."""

    def __init__(self, work: Tasks, done: list[str]) -> None:
        self.work, self.done = work, done

    async def enqueue(
        self, kind: str, payload: Document, *, run_id: str, key: str | None = None
    ) -> Enqueued:
        # Runs that are no activity of the schedule.
        if kind in {
            "retention",
            "performance_marks",
            "signal_outcomes",
            "daily_digest",
            "score_validation",
        }:
            self.done.append(kind)
        else:
            await getattr(self.work, kind)(*([noon()] if kind == "rebalance_check" else []))
        return Enqueued(run_id, is_new=True)

    async def wait_for_end(self, run_id: str) -> Job:
        at = noon()
        return Job(run_id, "", JobState.DONE, at, at, at, 1.0, (), {}, None, None)


def durable(desk: "Desk") -> Jobs:
    return cast("Jobs", Durable(desk.work, desk.done))  # the part of the port that ticks use


class Desk:
    """Every activity as a counter; the gates are events."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.provisional = False
        self.enough, self.full, self.board = asyncio.Event(), asyncio.Event(), asyncio.Event()
        later = (
            "rebalance_check",
            "replacement_check",
            "forced_replacement",
            "alerts",
            "signals",
            "signal_sources",
        )
        names = ("first_fill", "market", "candles", "books", "funding", "scoring")
        named = {name: self.note(name) for name in (*names, *later)}
        self.work = Tasks(
            **named,
            scorable=self.enough.wait,
            filled=self.full.wait,
            scored=self.board.wait,
            is_provisional=lambda: self.provisional,
        )

    def note(self, name: str):  # type: ignore[no-untyped-def]  # a use case like any other
        async def run(*_: object) -> None:
            self.done.append(name)

        return run


def test_the_table_follows_the_configuration() -> None:
    intervals = IntervalSettings()
    ticks = {
        tick.name: tick
        for tick in create_schedule(
            lambda: intervals, Desk().work, durable(Desk()), noon, lambda: 0.0
        )
    }
    seconds = {name: tick.interval_s() for name, tick in ticks.items()}
    assert seconds == {
        "market": 60,
        "candles": 30,
        "books": 15,
        "funding": 3600,
        "scoring": 300,
        "rebalance_check": 3600,
        "replacement_check": 3600,
        "forced_replacement": 60,
        "alerts": 60,
        "performance_marks": 3600,
        "retention": 3600,
        "signal_outcomes": 600,
        "daily_digest": 3600,
        "score_validation": 3600,
        "signals": 2,
        "signal_sources": 15,
    }
    # Every single one: the longer of step and rotation, or of look and bar, does not count.
    steps = {one.name: at for at, one in enumerate(fields(IntervalSettings), 100)}
    shown = {
        "candles": "candle_poll_s",
        "books": "order_book_batch_s",
        "performance_marks": "valuation_snapshots_s",
        "forced_replacement": "market_s",
    }
    steps |= {"order_books_s": 1_000, "hourly_candles_s": 1_000}
    intervals = IntervalSettings(**steps)
    for name, tick in ticks.items():
        assert tick.interval_s() == steps[shown.get(name, f"{name}_s")], name
    intervals = IntervalSettings(order_books_s=10, hourly_candles_s=11)
    assert [ticks[name].interval_s() for name in ("books", "candles")] == [10, 11]


async def settled() -> None:
    """Until everything that can go on has gone on: no clock is asked."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_ticks_begin_when_there_is_something_to_work_on() -> None:
    desk = Desk()
    supervisor = Supervisor(lambda: datetime(2026, 1, 1, tzinfo=UTC), lambda: forever(0.0))
    ticks = create_schedule(IntervalSettings, desk.work, durable(desk), noon, lambda: 0.0)
    start_feed_tasks(supervisor, ticks, desk.work, lambda: 0.0, lambda: True)
    start_tasks(supervisor, [tick for tick in ticks if tick.is_shared], lambda: 0.0)
    await settled()
    assert desk.done == ["first_fill", "alerts"], "what is wrong is told from the start"
    desk.enough.set()
    await settled()
    # what the first fill is still fetching is not fetched beside it
    assert sorted(desk.done) == [
        "alerts",
        "first_fill",
        "forced_replacement",
        "market",
        "scoring",
    ]
    desk.full.set()
    await settled()
    feed = {"first_fill", "alerts", "market", "candles", "books", "funding", "scoring"}
    feed |= {"forced_replacement"}
    assert set(desk.done) == feed
    desk.board.set()
    await settled()
    assert set(desk.done) == feed | {
        "rebalance_check",
        "replacement_check",
        "performance_marks",
        "retention",
        "signal_outcomes",
        "daily_digest",
        "score_validation",
        "signals",
        "signal_sources",
    }
    assert len(desk.done) == 17
    names = {fact.name for fact in supervisor.facts()}
    assert names == {
        "market",
        "candles",
        "books",
        "funding",
        "scoring",
        "rebalance_check",
        "replacement_check",
        "forced_replacement",
        "alerts",
        "performance_marks",
        "retention",
        "signal_outcomes",
        "daily_digest",
        "score_validation",
        "signals",
        "signal_sources",
    }
    await supervisor.stop()


async def test_a_digest_waits_for_scores_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    ticks = create_schedule(IntervalSettings, desk.work, durable(desk), noon, lambda: 0.0)
    (digest,) = (tick for tick in ticks if tick.name == "daily_digest")
    assert digest.gate is not None
    waiting = asyncio.ensure_future(digest.gate())
    await settled()
    assert not waiting.done()
    desk.board.set()
    await waiting
    desk.board.clear()
    monkeypatch.setattr("app.workers.schedule.DIGEST_WAIT_S", 0.0)
    await asyncio.wait_for(digest.gate(), 5)  # without scores it reports them as missing


SLOTTED = (
    JobKind.REBALANCE_CHECK,
    JobKind.REPLACEMENT_CHECK,
    JobKind.PERFORMANCE_MARKS,
    JobKind.SIGNAL_OUTCOMES,
    JobKind.RETENTION,
    JobKind.DAILY_DIGEST,
    JobKind.SCORE_VALIDATION,
)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("steps_h", [(1, -1), (-1, 1), (24, -24), (-24, 24)], ids=str)
async def test_T03_a_clock_that_is_set_skips_and_doubles_no_scheduled_job(
    database_url: str, steps_h: tuple[int, int]
) -> None:
    """Each job of the table runs once an interval, whatever is done to the wall clock."""
    runs = Runs(0)
    off = timedelta()

    async def ran(*_: object) -> None:
        """Work that takes a second, and after which the clock may have been set."""
        if len(runs.at) == 7:
            raise EnoughError
        runs.at.append(runs.now)
        runs.now += 1.0
        nonlocal off
        if len(runs.at) in {2, 5}:
            off += timedelta(hours=steps_h[len(runs.at) == 5])

    async def carried_out(journal: StepJournal, payload: Document) -> Document:
        async def act() -> Document:
            moments.append(str(payload["scheduled_at"]))
            await ran()
            return {}

        return await journal.step("act", act)

    async def waited() -> None:
        return

    def wall() -> datetime:
        return noon() + off + timedelta(seconds=runs.now)

    open_gates = dict.fromkeys(("scorable", "filled", "scored"), waited)
    other = {one.name: ran for one in fields(Tasks) if one.name not in open_gates}
    work = Tasks(**other, **open_gates)  # type: ignore[arg-type]  # any of them
    work = replace(work, is_provisional=lambda: False)
    moments: list[str] = []
    seen = set()
    async with engine_at(
        database_url, [DurableRun(kind.value, ("act",), carried_out) for kind in SLOTTED]
    ) as engine:
        for tick in create_schedule(IntervalSettings, work, engine, wall, lambda: runs.now):
            runs.at, runs.now, off = [], 0.0, timedelta()
            moments.clear()
            # A durable job that fails is told as unavailable.
            with pytest.raises((EnoughError, UnavailableError)):
                await repeat(tick, lambda: None, lambda: runs.now, runs.sleep)
            every = tick.interval_s()
            assert runs.at == [round(turn * every, 3) for turn in range(7)], tick.name
            if moments:
                assert len(set(moments[:7])) == 7, "each has a moment of its own"
                seen.add(tick.name)
    assert seen == {kind.value for kind in SLOTTED}


async def test_K16_a_resumed_former_leader_runs_no_feed_task() -> None:
    runs = Runs(0)
    owns = iter([True, False, False])
    desk = Desk()
    supervisor = Supervisor(lambda: datetime(2026, 1, 1, tzinfo=UTC), lambda: forever(0.0))

    async def market() -> None:
        if "market" in desk.done:
            raise asyncio.CancelledError  # it had to be asked first, and was not
        await desk.work.market()

    ticks = [
        ScheduledTask("market", lambda: 0.0, market),
        ScheduledTask("x", lambda: 0.0, runs.run),
    ]
    shared = [replace(ticks[1], is_shared=True)]

    def is_owner() -> bool:
        try:
            return next(owns)
        except StopIteration:
            raise asyncio.CancelledError from None  # the test has seen enough

    names = start_feed_tasks(supervisor, [ticks[0], *shared], desk.work, lambda: 0.0, is_owner)
    assert names == ("first_fill", "market"), "what every process does is not begun with it"
    await settled()
    assert sorted(desk.done) == ["first_fill", "market"]
    assert next(owns, None) is None, "it was asked before each turn"
    await supervisor.stop()


async def test_a_slotted_tick_waits_as_long_as_its_slots_say() -> None:
    runs, left = Runs(3), iter([50.0, 20.0, 0.0, 3.0, -1.0, 0.0])
    tick = ScheduledTask("rebalance_check", lambda: 60.0, runs.run, due_in_s=lambda: next(left))
    assert await runs.follow(tick) == [100.0, 110.0, 113.0]


def test_a_provisional_board_is_scored_again_soon() -> None:
    desk, intervals = Desk(), IntervalSettings()
    ticks = create_schedule(lambda: intervals, desk.work, durable(desk), noon, lambda: 0.0)
    scoring = next(tick for tick in ticks if tick.name == "scoring")
    assert scoring.interval_s() == 300
    desk.provisional = True
    assert scoring.interval_s() == 30
    intervals = IntervalSettings(scoring_s=5)
    assert scoring.interval_s() == 5
