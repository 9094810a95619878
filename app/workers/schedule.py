"""Schedule: a table of tasks, their intervals and conditions, each run once per slot of time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
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
_REMEMBERED: Final = 2_000  # slots: more than a day has of any interval from a minute up


@dataclass(slots=True)
class OncePerSlotTask:
    """Runs once per slot of `interval_s` seconds; slots are counted from 1970 in every process.

    All processes ask for the same run, which is named after kind and slot, and so it is begun
    once. One that fails is begun again under the number of its attempt. A slot that begins while
    the run of an earlier one goes on is passed over.

    The wall clock names a slot, `monotonic` says when the next one is due. A wall clock that is
    set therefore moves the next run by half an interval at most, and a slot that comes a second
    time has a run of its own.
    """

    kind: JobKind
    interval_s: Callable[[], float]
    jobs: Jobs
    clock: Clock
    monotonic: Monotonic
    _slot: datetime | None = field(default=None, init=False)
    _first: datetime | None = field(default=None, init=False)  # slot of this process
    _interval_us: int = field(default=0, init=False)
    _begun_us: int = field(default=0, init=False)  # monotonic time when the slot began
    _rounds: dict[datetime, int] = field(default_factory=dict, init=False)
    _attempt: int = field(default=1, init=False)

    async def run(self) -> None:
        """Complete the run of the present slot. Raises UnavailableError if it failed."""
        slot = self._enter()
        again = self._rounds[slot]
        label = f"{slot:%Y-%m-%dT%H:%M:%SZ}" + (f".{again}" if again > 1 else "")
        name = f"{self.kind.value}:{label}:{self._attempt}"
        # A second round of a slot is another moment for all who store what happened at it.
        at = slot + (again - 1) * _MICROSECOND
        begun = await self.jobs.enqueue(
            self.kind.value,
            {"scheduled_at": at.isoformat(), "attempt": self._attempt},
            run_id=name,
            key=self.kind.value,
        )
        job = await self.jobs.finished(begun.run_id)
        if job.state is JobState.FAILED and begun.run_id == name:
            self._attempt += 1
            cause = job.error.code if job.error else ""
            raise UnavailableError(
                Code(cause) if cause in _CODES else Code.INTERNAL_ERROR, f"{name} failed: {cause}"
            )

    def left_s(self) -> float:
        """Seconds until the next slot is due; none when it is, whatever the interval was."""
        if self._slot is None:
            return 0.0
        interval, wall, mono = self._now()
        if interval != self._interval_us:
            passed = wall % interval
            return 0.0 if mono - passed > self._begun_us else (interval - passed) / 1e6
        # The beginning of a slot that is nearest to one interval after the last beginning.
        due = self._begun_us + interval
        off = (due + wall - mono) % interval
        due += interval - off if 2 * off > interval else -off
        return max(0, due - mono) / 1e6

    def _enter(self) -> datetime:
        """The slot to run: the present one when it is due, else the last one again."""
        if self._slot is not None and self.left_s() > 0:
            return self._slot
        interval, wall, mono = self._now()
        slot = _EPOCH + (wall - wall % interval) * _MICROSECOND
        self._first = self._first or slot
        # What began before this process may have been run by an earlier one.
        known = self._rounds.pop(slot, 1 if slot < self._first else 0)
        self._rounds[slot] = known + 1
        while len(self._rounds) > _REMEMBERED:
            del self._rounds[next(iter(self._rounds))]
        self._slot, self._interval_us, self._attempt = slot, interval, 1
        self._begun_us = mono - wall % interval
        return slot

    def _now(self) -> tuple[int, int, int]:
        """Interval, wall clock and monotonic clock in whole microseconds."""
        wall = (self.clock() - _EPOCH) // _MICROSECOND
        return round(self.interval_s() * 1e6), wall, round(self.monotonic() * 1e6)


UseCase = Callable[[], Awaitable[object]]

# A changed interval takes effect within this time, however long the old one was.
CHECK_INTERVAL_S: Final = 5.0
# No turn of a tick takes longer, whatever it has to catch up with; if it does it is stuck.
TURN_S: Final = 600.0
# So long nothing may come in for who asks the exchange: it may block us for half a minute.
ASKING_S: Final = 300.0
PROVISIONAL_S: Final = 30.0  # a provisional board of a filled market is scored again so soon
FIRST_FILL: Final = "first_fill"


@dataclass(frozen=True, slots=True)
class ScheduledTask:
    """One scheduled task: name, present interval in seconds, use case and condition to start."""

    name: str
    interval_s: Callable[[], float]
    run: UseCase
    gate: UseCase | None = None  # awaited once before the first run
    left_s: Callable[[], float] | None = None  # until the next one, where slots say so
    is_shared: bool = False  # every process ticks; else only the owner of the feed


@dataclass(frozen=True, slots=True)
class Tasks:
    """The use cases behind the ticks.

    `first_fill` gives a beat with each thing that it has brought. `scorable` returns once there is
    enough to score, `filled` once the first fill is complete, `scored` once there is a complete
    board of the whole market. `is_provisional` says whether a filled market gave a board that
    lacks data.
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
    # Of the tick that was due then; what they give is recorded with the job.
    rebalance_check: Callable[[datetime], Awaitable[Document]]
    replacement_check: Callable[[], Awaitable[Document]]
    forced_replacement: UseCase
    alerts: UseCase
    signals: UseCase
    signal_sources: UseCase


def table(
    intervals: Callable[[], IntervalSettings],
    work: Tasks,
    jobs: Jobs,
    clock: Clock,
    monotonic: Monotonic,
) -> tuple[ScheduledTask, ...]:
    """The schedule; intervals are read anew before each run.

    What the first fill fetches is not fetched beside it; what decides waits for a whole board.
    Alerts wait for nothing: an exchange that is away from the start is one.
    What must happen once over all processes is a durable run that each of them asks for; the rest
    is done by the owner of the feed, for only it talks to the exchange.
    """

    def once(kind: JobKind, interval_s: Callable[[], float], gate: UseCase) -> ScheduledTask:
        slotted = OncePerSlotTask(kind, interval_s, jobs, clock, monotonic)
        return ScheduledTask(
            kind.value, interval_s, slotted.run, gate, slotted.left_s, is_shared=True
        )

    def scoring_s() -> float:
        cadence_s = intervals().scoring_s
        return min(cadence_s, PROVISIONAL_S) if work.is_provisional() else cadence_s

    return (
        ScheduledTask("market", lambda: intervals().market_s, work.market, work.scorable),
        ScheduledTask("candles", lambda: intervals().candle_check_s, work.candles, work.filled),
        ScheduledTask("books", lambda: intervals().order_book_check_s, work.books, work.filled),
        ScheduledTask("funding", lambda: intervals().funding_s, work.funding, work.filled),
        ScheduledTask("scoring", scoring_s, work.scoring, work.scorable),
        once(JobKind.REBALANCE_CHECK, lambda: intervals().rebalance_check_s, work.scored),
        once(JobKind.REPLACEMENT_CHECK, lambda: intervals().replacement_check_s, work.scored),
        # A contract that ends is seen by the market refresh: its member goes at once, for cash
        # while there is no complete board.
        ScheduledTask("forced_replacement", lambda: intervals().market_s, work.forced_replacement,
             work.scorable),
        ScheduledTask("alerts", lambda: intervals().alerts_s, work.alerts),
        once(JobKind.PERFORMANCE_MARKS, lambda: intervals().valuation_snapshots_s, work.scored),
        once(JobKind.SIGNAL_OUTCOMES, lambda: intervals().signal_outcomes_s, work.scored),
        once(JobKind.RETENTION, lambda: intervals().retention_s, work.scored),
        # Their table is the queue, and who takes some locks them: every process may judge.
        ScheduledTask("signals", lambda: intervals().signals_s, work.signals, work.scored,
                      is_shared=True),
        ScheduledTask("signal_sources", lambda: intervals().signal_sources_s, work.signal_sources,
             work.scored),
    )  # fmt: skip


async def repeat(
    tick: ScheduledTask,
    beat: Heartbeat,
    monotonic: Monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run a tick for ever, an interval from start to start; late means once, never several."""

    def left_s() -> float:
        if tick.left_s is not None:
            return tick.left_s()
        return started + tick.interval_s() - monotonic()

    if tick.gate is not None:
        await tick.gate()
    while True:
        started = monotonic()
        await tick.run()
        beat()
        while (left := left_s()) > 0:
            await sleep(min(left, CHECK_INTERVAL_S))


def begin(
    supervisor: Supervisor,
    ticks: Iterable[ScheduledTask],
    monotonic: Monotonic,
    is_due: Callable[[], bool] = lambda: True,
) -> None:
    """Start every tick as a supervised task; it does nothing while `is_due` says so."""

    def looping(tick: ScheduledTask) -> Callable[[Heartbeat], Awaitable[None]]:
        async def run() -> None:
            if is_due():
                await tick.run()

        guarded = replace(tick, run=run)
        return lambda beat: repeat(guarded, beat, monotonic)

    def limit(tick: ScheduledTask) -> Callable[[], float]:
        # A wall clock that is set moves a slotted tick by half an interval at most.
        share = 1.0 if tick.left_s is None else 1.5
        return lambda: share * tick.interval_s() + TURN_S

    for tick in ticks:
        supervisor.start(
            tick.name, looping(tick), limit(tick), is_watchdog_enabled=tick.gate is None
        )


def begin_feed(
    supervisor: Supervisor,
    ticks: Iterable[ScheduledTask],
    work: Tasks,
    monotonic: Monotonic,
    is_owner: Callable[[], bool],
) -> tuple[str, ...]:
    """Start the first fill and what only the owner of the feed does; the names of the tasks.

    `is_owner` is asked before each turn: who was stopped and wakes may no longer be the owner.
    """

    async def fill(beat: Heartbeat) -> None:
        await work.first_fill(beat)

    own = [tick for tick in ticks if not tick.is_shared]
    supervisor.start(FIRST_FILL, fill, lambda: ASKING_S)
    begin(supervisor, own, monotonic, is_owner)
    return (FIRST_FILL, *(tick.name for tick in own))
