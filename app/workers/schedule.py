"""Schedule: a table of tasks, their intervals and conditions, each run once per slot of time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from app.configuration.domain.model import IntervalSettings
from app.foundation.errors import Code, UnavailableError
from app.foundation.jobs import Document, JobKind, JobState
from app.foundation.ports import Clock, Jobs, Monotonic
from app.workers.supervisor import Heartbeat, Supervisor

_CODES: Final = frozenset(code.value for code in Code)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_REMEMBERED: Final = 2_000  # slots: more than a day at any interval from one minute


@dataclass(slots=True)
class OncePerSlotTask:
    """Runs once per slot of `interval_s` seconds; slots count from 1970 in every process.

    All processes enqueue the same run, named after kind and slot, so it starts once. A failed run
    starts again under the number of its attempt. A slot that begins during the run of an earlier
    one is skipped.

    The wall clock names a slot; `monotonic` decides when the next one is due. So a step of the
    wall clock moves the next run by at most half an interval, and a slot that repeats has a run of
    its own.
    """

    kind: JobKind
    interval_s: Callable[[], float]
    jobs: Jobs
    clock: Clock
    monotonic: Monotonic
    _slot: datetime | None = field(default=None, init=False)
    _first: datetime | None = field(default=None, init=False)  # first slot of this process
    _interval_us: int = field(default=0, init=False)
    _begun_us: int = field(default=0, init=False)  # monotonic time at the start of the slot
    _rounds: dict[datetime, int] = field(default_factory=dict, init=False)
    _attempt: int = field(default=1, init=False)

    async def run(self) -> None:
        """Completes the run of the current slot. Raises UnavailableError if it failed."""
        slot = self._enter_slot()
        again = self._rounds[slot]
        label = f"{slot:%Y-%m-%dT%H:%M:%SZ}" + (f".{again}" if again > 1 else "")
        name = f"{self.kind.value}:{label}:{self._attempt}"
        # A repeated slot gets another time, so that stored rows of both differ.
        scheduled_at = slot + (again - 1) * _MICROSECOND
        enqueued = await self.jobs.enqueue(
            self.kind.value,
            {"scheduled_at": scheduled_at.isoformat(), "attempt": self._attempt},
            run_id=name,
            key=self.kind.value,
        )
        job = await self.jobs.wait_for_end(enqueued.run_id)
        if job.state is JobState.FAILED and enqueued.run_id == name:
            self._attempt += 1
            cause = job.error.code if job.error else ""
            raise UnavailableError(
                Code(cause) if cause in _CODES else Code.INTERNAL_ERROR, f"{name} failed: {cause}"
            )

    def due_in_s(self) -> float:
        """Returns seconds until the next slot is due; 0 if it is due, also after a new interval."""
        if self._slot is None:
            return 0.0
        interval, wall, mono = self._now()
        if interval != self._interval_us:
            passed = wall % interval
            return 0.0 if mono - passed > self._begun_us else (interval - passed) / 1e6
        # The start of a slot that is nearest to one interval after the last start.
        due = self._begun_us + interval
        off = (due + wall - mono) % interval
        due += interval - off if 2 * off > interval else -off
        return max(0, due - mono) / 1e6

    def _enter_slot(self) -> datetime:
        """Returns the slot to run: the current one if it is due, else the last one again."""
        if self._slot is not None and self.due_in_s() > 0:
            return self._slot
        interval, wall, mono = self._now()
        slot = _EPOCH + (wall - wall % interval) * _MICROSECOND
        self._first = self._first or slot
        # A slot that began before this process may have been run by an earlier process.
        known = self._rounds.pop(slot, 1 if slot < self._first else 0)
        self._rounds[slot] = known + 1
        while len(self._rounds) > _REMEMBERED:
            del self._rounds[next(iter(self._rounds))]
        self._slot, self._interval_us, self._attempt = slot, interval, 1
        self._begun_us = mono - wall % interval
        return slot

    def _now(self) -> tuple[int, int, int]:
        """Returns interval, wall clock and monotonic clock in whole microseconds."""
        wall = (self.clock() - _EPOCH) // _MICROSECOND
        return round(self.interval_s() * 1e6), wall, round(self.monotonic() * 1e6)


UseCase = Callable[[], Awaitable[object]]

# A changed interval takes effect within this time, however long the old interval was.
CHECK_INTERVAL_S: Final = 5.0
# Upper bound of one run of a task, including all catching up; a longer run is stuck.
MAX_RUN_S: Final = 600.0
# Silence limit of tasks that call the exchange: a ban may last half a minute.
EXCHANGE_SILENT_S: Final = 300.0
PROVISIONAL_S: Final = 30.0  # interval after a provisional board of a filled market
DIGEST_WAIT_S: Final = 600.0  # after which a digest reports missing scores
FIRST_FILL: Final = "first_fill"


@dataclass(frozen=True, slots=True)
class ScheduledTask:
    """One scheduled task: name, current interval in seconds, use case and start condition."""

    name: str
    interval_s: Callable[[], float]
    run: UseCase
    gate: UseCase | None = None  # awaited once before the first run
    due_in_s: Callable[[], float] | None = None  # seconds to the next slot, for slotted tasks
    is_shared: bool = False  # runs in every process; else only in the feed leader


@dataclass(frozen=True, slots=True)
class Tasks:
    """Use cases behind the scheduled tasks.

    `first_fill` sends a heartbeat with each part that it loads. `scorable` returns once there is
    enough data to score, `filled` once the first fill is complete, `scored` once a complete board
    of the whole market exists. `is_provisional` is True if a filled market gave an incomplete
    board.
    """

    first_fill: Callable[[Heartbeat], Awaitable[object]]
    scorable: UseCase
    filled: UseCase
    scored: UseCase
    market: UseCase
    candles: UseCase
    books: UseCase
    funding: UseCase
    scoring: UseCase
    is_provisional: Callable[[], bool]
    # The argument is the time of the slot; the result is recorded with the job.
    rebalance_check: Callable[[datetime], Awaitable[Document]]
    replacement_check: Callable[[], Awaitable[Document]]
    forced_replacement: UseCase
    alerts: UseCase
    signals: UseCase
    signal_sources: UseCase


def create_schedule(
    intervals: Callable[[], IntervalSettings],
    work: Tasks,
    jobs: Jobs,
    clock: Clock,
    monotonic: Monotonic,
) -> tuple[ScheduledTask, ...]:
    """Returns the schedule; intervals are read again before each run.

    Periodic fetches start after the first fill; decisions wait for a complete board. Alerts wait
    for nothing, because an exchange that is down from the start is an alert. Work that must happen
    once in all processes is a durable run; the rest runs in the feed leader, the only process that
    calls the exchange.
    """

    def once(kind: JobKind, interval_s: Callable[[], float], gate: UseCase) -> ScheduledTask:
        slotted = OncePerSlotTask(kind, interval_s, jobs, clock, monotonic)
        return ScheduledTask(
            kind.value, interval_s, slotted.run, gate, slotted.due_in_s, is_shared=True
        )

    async def scored_or_late() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DIGEST_WAIT_S):
                await work.scored()

    def scoring_s() -> float:
        interval_s = intervals().scoring_s
        return min(interval_s, PROVISIONAL_S) if work.is_provisional() else interval_s

    return (
        ScheduledTask("market", lambda: intervals().market_s, work.market, work.scorable),
        ScheduledTask("candles", lambda: intervals().candle_check_s, work.candles, work.filled),
        ScheduledTask("books", lambda: intervals().order_book_check_s, work.books, work.filled),
        ScheduledTask("funding", lambda: intervals().funding_s, work.funding, work.filled),
        ScheduledTask("scoring", scoring_s, work.scoring, work.scorable),
        once(JobKind.REBALANCE_CHECK, lambda: intervals().rebalance_check_s, work.scored),
        once(JobKind.REPLACEMENT_CHECK, lambda: intervals().replacement_check_s, work.scored),
        # The market refresh detects contracts that end: their members leave at once, for cash
        # while there is no complete board.
        ScheduledTask("forced_replacement", lambda: intervals().market_s, work.forced_replacement,
             work.scorable),
        ScheduledTask("alerts", lambda: intervals().alerts_s, work.alerts),
        once(JobKind.PERFORMANCE_MARKS, lambda: intervals().valuation_snapshots_s, work.scored),
        once(JobKind.SIGNAL_OUTCOMES, lambda: intervals().signal_outcomes_s, work.scored),
        once(JobKind.RETENTION, lambda: intervals().retention_s, work.scored),
        once(JobKind.DAILY_DIGEST, lambda: intervals().daily_digest_s, scored_or_late),
        once(JobKind.SCORE_VALIDATION, lambda: intervals().score_validation_s, work.scored),
        # The signals table is a queue with row locks, so every process may evaluate.
        ScheduledTask("signals", lambda: intervals().signals_s, work.signals, work.scored,
                      is_shared=True),
        ScheduledTask("signal_sources", lambda: intervals().signal_sources_s, work.signal_sources,
             work.scored),
    )  # fmt: skip


async def repeat(
    task: ScheduledTask,
    beat: Heartbeat,
    monotonic: Monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Runs a task for ever, an interval from start to start; missed intervals run once."""

    def due_in_s() -> float:
        if task.due_in_s is not None:
            return task.due_in_s()
        return started + task.interval_s() - monotonic()

    if task.gate is not None:
        await task.gate()
    while True:
        started = monotonic()
        await task.run()
        beat()
        while (wait_s := due_in_s()) > 0:
            await sleep(min(wait_s, CHECK_INTERVAL_S))


def start_tasks(
    supervisor: Supervisor,
    tasks: Iterable[ScheduledTask],
    monotonic: Monotonic,
    is_due: Callable[[], bool] = lambda: True,
) -> None:
    """Starts each task under the supervisor; a run does nothing while `is_due` returns False."""

    def looping(task: ScheduledTask) -> Callable[[Heartbeat], Awaitable[None]]:
        async def run() -> None:
            if is_due():
                await task.run()

        guarded = replace(task, run=run)
        return lambda beat: repeat(guarded, beat, monotonic)

    def longest(task: ScheduledTask, more_s: float) -> Callable[[], float]:
        # A step of the wall clock moves a slotted task by half an interval at most.
        factor = 1.0 if task.due_in_s is None else 1.5
        return lambda: factor * task.interval_s() + more_s

    for task in tasks:
        supervisor.start(
            task.name,
            looping(task),
            longest(task, MAX_RUN_S),
            rest_s=longest(task, 0.0),
            is_watchdog_enabled=task.gate is None,
        )


def start_feed_tasks(
    supervisor: Supervisor,
    tasks: Iterable[ScheduledTask],
    work: Tasks,
    monotonic: Monotonic,
    is_owner: Callable[[], bool],
) -> tuple[str, ...]:
    """Starts the first fill and the tasks of the feed leader; returns their names.

    `is_owner` is checked before each run: a suspended process may no longer lead when it resumes.
    """

    async def fill(beat: Heartbeat) -> None:
        await work.first_fill(beat)

    own = [task for task in tasks if not task.is_shared]
    supervisor.start(FIRST_FILL, fill, lambda: EXCHANGE_SILENT_S)
    start_tasks(supervisor, own, monotonic, is_owner)
    return (FIRST_FILL, *(task.name for task in own))
