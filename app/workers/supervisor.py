"""Owns every long task: starts it, restarts it with back-off, reports on it, stops it in order."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from app.foundation.errors import ServiceError, UnavailableError
from app.foundation.health_facts import TaskFacts
from app.foundation.metrics import Metrics
from app.foundation.ports import Clock, Monotonic
from app.foundation.replicas import Replicas

CRASHES: Final = 5  # are begun again at once
WINDOW_S: Final = 60.0
REST_S: Final = 300.0


@dataclass(slots=True)
class Restarts:
    """The budget of one task; outages do not count, for they end by themselves.

    All times are monotonic: a step of the wall clock neither spends nor lengthens anything.
    """

    failed_until_s: float | None = None  # it is not begun again before that
    crashes: int = 0  # that made it count as failed, and those since
    _recent: deque[float] = field(default_factory=deque)

    def crashed(self, at_s: float, pause_s: float) -> float:
        """Seconds until it is begun again: `pause_s`, or many where the budget is spent."""
        self._recent.append(at_s)
        while self._recent[0] <= at_s - WINDOW_S:
            self._recent.popleft()
        if len(self._recent) <= CRASHES and self.failed_until_s is None:
            return pause_s
        self.crashes = max(self.crashes + 1, len(self._recent))
        self.failed_until_s = at_s + REST_S
        return REST_S

    def ran(self, at_s: float) -> None:
        """It gave a sign of life; a minute after its rest that is believed."""
        if self.failed_until_s is not None and at_s >= self.failed_until_s + WINDOW_S:
            self.failed_until_s, self.crashes = None, 0


_log = structlog.get_logger("supervisor")

Beat = Callable[[], None]  # a task calls it whenever it has done something right
Work = Callable[[Beat], Awaitable[None]]
Limit = Callable[[], float]  # seconds
Delays = Callable[[], Iterator[float]]  # seconds to wait, one after the other, jitter included


LOOK_S: Final = 5.0
_LOOKS: Final = 12  # that it may miss itself
STUCK: Final = "task_stuck"


class StuckError(Exception):
    """A task gave no sign of life for too long and was ended."""


@dataclass(slots=True)
class _Task:
    name: str
    work: Work
    since: datetime
    limit_s: Limit
    task: asyncio.Task[None] | None = None
    finished: bool = False
    last_success: datetime | None = None
    last_error: str | None = None
    failures: int = 0  # since it last succeeded
    restarts: int = 0
    is_armed: bool = True
    is_working: bool = False
    is_cut: bool = False  # ended for its silence, and not yet gone
    silent_s: float = 0.0
    budget: Restarts = field(default_factory=Restarts)


@dataclass(slots=True)
class Supervisor:
    """Keeps named tasks alive; the one place where an unforeseen error is caught.

    Who fails by one too often within a minute counts as failed, and rests for minutes.

    `delays` makes a new iterator of waiting times for each series of failures; when it runs out
    its last value is kept. `restarted` is told the name at each restart. Silence is not counted
    while `excused` says so: who waits for what is known to be away is not stuck.
    """

    clock: Clock
    delays: Delays
    restarted: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    excused: Callable[[], bool] = lambda: False
    monotonic: Monotonic = time.monotonic
    _tasks: dict[str, _Task] = field(default_factory=dict)

    def start(self, name: str, work: Work, limit_s: Limit, *, is_armed: bool = True) -> None:
        """Run `work` until it returns; when it raises, run it again after a pause.

        So too when it gives no beat for `limit_s`, counted from its first one unless `is_armed`:
        no task may be silent for ever.
        Raises ValueError for a name that is running already.
        """
        known = self._tasks.get(name)
        if known is not None and not known.finished:
            raise ValueError(f"task {name} is running already")
        task = _Task(name, work, self.clock(), limit_s, is_armed=is_armed)
        self._tasks[name] = task
        kept = self._keep(task)
        task.task = asyncio.create_task(kept, name=name)  # noqa: TID251 - the owner of all tasks

    def attend(self, excused: Callable[[], bool]) -> None:
        """From now on look after all of them."""
        self.excused = excused
        self.start("silence", self.watch, lambda: _LOOKS * LOOK_S)

    async def watch(self, beat: Beat) -> None:
        """Looks at the silence of all tasks, for ever."""
        while True:
            await self.sleep(LOOK_S)
            if not self.excused():
                self.look(LOOK_S)
            beat()

    def look(self, passed_s: float) -> None:
        """Ends who has been silent for too long; it begins again by itself.

        `passed_s` is what a look counts, however late it comes: time in which the whole process
        did not run is nobody's silence.
        """
        for task in self._tasks.values():
            if not (task.is_armed and task.is_working) or not task.task:
                continue
            task.silent_s += passed_s
            if task.silent_s > task.limit_s() and not task.is_cut:
                task.is_cut, task.last_error = True, STUCK
                _log.error("task_stuck", task=task.name, at=_place(task.task))
                task.task.cancel()

    async def stop(self) -> None:
        """Cancel every task, the youngest first, each one awaited before the next."""
        while self._tasks:
            _, task = self._tasks.popitem()
            if task.task is not None:
                task.task.cancel()
                await asyncio.gather(task.task, return_exceptions=True)

    async def end(self, *names: str) -> None:
        """Cancel these, each one awaited; those that do not run, or no longer, are passed over.

        Who is cancelled meanwhile calls it again: what has not ended is still known.
        """
        for name in names:
            one = self._tasks.get(name)
            if one is not None and one.task is not None:
                one.task.cancel()
                await asyncio.gather(one.task, return_exceptions=True)
            self._tasks.pop(name, None)

    async def wait(self, name: str) -> None:
        """Until the task has returned by itself."""
        task = self._tasks[name].task
        if task is not None:
            await asyncio.shield(task)

    def facts(self) -> tuple[TaskFacts, ...]:
        """What each task says of itself; those that have done their work are left out."""
        return tuple(
            TaskFacts(
                name=task.name,
                running=task.task is not None and not task.task.done(),
                last_success=task.last_success,
                last_error=task.last_error,
                failures=task.failures,
                silent_s=task.silent_s,
                limit_s=task.limit_s() if task.is_armed else None,
                crashes=task.budget.crashes,
                failed_until=self._wall(task.budget.failed_until_s),
            )
            for task in self._tasks.values()
            if not task.finished
        )

    def _wall(self, at_s: float | None) -> datetime | None:
        """A monotonic time as the wall clock of now shows it."""
        if at_s is None:
            return None
        return self.clock() + timedelta(seconds=at_s - self.monotonic())

    async def _keep(self, task: _Task) -> None:
        pauses: Iterator[float] = iter(())
        pause = 0.0

        def beat() -> None:
            task.last_success = self.clock()
            task.budget.ran(self.monotonic())
            task.last_error = None
            task.failures = 0
            task.silent_s = 0.0
            task.is_armed = True

        while True:
            try:
                await self._once(task, beat)
            except Exception as error:
                expected = _is_foreseen(error)
                task.last_error = _cause(error)
                if task.failures == 0:
                    pauses = self.delays()
                task.failures += 1
                pause = next(pauses, pause)
                rest = pause if expected else task.budget.crashed(self.monotonic(), pause)
                # An outage is news once and a bug is news every time, with its traceback.
                say = _log.warning if expected else _log.error
                say(
                    "task_failed",
                    task=task.name,
                    cause=task.last_error,
                    failures=task.failures,
                    retry_in_s=round(rest, 3),
                    exc_info=None if expected else error,
                )
            else:
                beat()
                task.finished = True
                return
            await self.sleep(rest)
            task.restarts += 1
            self.restarted(task.name)

    async def _once(self, task: _Task, beat: Beat) -> None:
        """Raises StuckError where it was ended for its silence."""
        task.silent_s, task.is_cut, task.is_working = 0.0, False, True
        own = asyncio.current_task()
        try:
            await task.work(beat)
        except (Exception, asyncio.CancelledError) as error:
            # What it does at its end may fail as well: that is no reason to begin it again.
            if own is None or not own.cancelling():
                raise
            if not task.is_cut or own.uncancel() > 0:
                raise asyncio.CancelledError from error  # it was told to stop, whatever else
            raise StuckError from None
        finally:
            task.is_working = False


def _place(task: asyncio.Task[None]) -> str:
    """The innermost function in which it waits, and the line."""
    waits: Any = task.get_coro()
    frame = None
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or frame
        waits = getattr(waits, "cr_await", None)
    return "" if frame is None else f"{frame.f_code.co_qualname}:{frame.f_lineno}"


def _is_foreseen(error: Exception) -> bool:
    """What was done side by side is as foreseen as all that came of it."""
    if isinstance(error, ExceptionGroup):
        return all(_is_foreseen(one) for one in error.exceptions)
    return isinstance(error, ServiceError | StuckError)


def _cause(error: Exception) -> str:
    """A stable code where there is one; never the text of an unforeseen error."""
    if isinstance(error, StuckError):
        return STUCK
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error.code) if isinstance(error, ServiceError) else type(error).__name__


_watchdog_log = structlog.get_logger("replicas")


@dataclass(frozen=True, slots=True)
class Watchdog:
    """Goes on at its own pace when the database is away: whoever paused longer would seem dead."""

    replicas: Replicas
    metrics: Metrics
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(self, beat: Beat) -> None:
        while True:
            try:
                taken = await self.replicas.round()
            except UnavailableError as error:
                _watchdog_log.warning("heartbeat_missed", cause=str(error.code))
            else:
                self.metrics.job_executors_buried.inc(len(taken))
                beat()
            await self.sleep(self.replicas.beat_s)
