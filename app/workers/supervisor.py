"""Owns every long task: starts it, restarts it within limits, reports on it, stops it."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from app.foundation.errors import ServiceError
from app.foundation.health import TaskFacts
from app.foundation.ports import Clock, Monotonic

CRASHES: Final = 5  # are begun again at once
WINDOW_S: Final = 60.0
COOLDOWN_S: Final = 300.0


@dataclass(slots=True)
class RestartLimiter:
    """Restart budget of one task; outages do not count, for they end by themselves.

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
        self.failed_until_s = at_s + COOLDOWN_S
        return COOLDOWN_S

    def ran(self, at_s: float) -> None:
        """It gave a sign of life; a minute after its rest that is believed."""
        if self.failed_until_s is not None and at_s >= self.failed_until_s + WINDOW_S:
            self.failed_until_s, self.crashes = None, 0


_log = structlog.get_logger("supervisor")

Heartbeat = Callable[[], None]  # a task calls it whenever it has done something right
Work = Callable[[Heartbeat], Awaitable[None]]
Limit = Callable[[], float]  # seconds
Delays = Callable[[], Iterator[float]]  # seconds to wait, one after the other, jitter included


CHECK_INTERVAL_S: Final = 5.0
_LOOKS: Final = 12  # that it may miss itself
HEARTBEAT_TIMEOUT: Final = "task_stuck"


class HeartbeatTimeoutError(Exception):
    """A task gave no sign of life for too long and was ended."""


@dataclass(slots=True)
class _Task:
    name: str
    work: Work
    since: datetime
    limit_s: Limit
    task: asyncio.Task[None] | None = None
    finished: bool = False
    last_success_at: datetime | None = None
    last_error: str | None = None
    failures: int = 0  # since it last succeeded
    restarts: int = 0
    is_watchdog_enabled: bool = True
    is_working: bool = False
    is_cancelled: bool = False  # ended for its silence, and not yet gone
    silent_s: float = 0.0
    budget: RestartLimiter = field(default_factory=RestartLimiter)


@dataclass(slots=True)
class Supervisor:
    """Keeps named tasks alive; the one place where an unforeseen error is caught.

    A task that fails by one too often within a minute counts as failed and cools down.

    `delays` makes a new iterator of waiting times for each series of failures; when it runs out
    its last value is repeated. `restarted` gets the name at each restart. Silence is not counted
    while `is_paused` is true: a task that waits for a known outage is not stuck.
    """

    clock: Clock
    delays: Delays
    restarted: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    is_paused: Callable[[], bool] = lambda: False
    monotonic: Monotonic = time.monotonic
    _tasks: dict[str, _Task] = field(default_factory=dict)

    def start(
        self, name: str, work: Work, limit_s: Limit, *, is_watchdog_enabled: bool = True
    ) -> None:
        """Run `work` until it returns; when it raises, run it again after a pause.

        It is ended and run again, too, when it gives no beat for `limit_s`; without
        `is_watchdog_enabled` that counts from its first beat.
        Raises ValueError for a name that is running already.
        """
        known = self._tasks.get(name)
        if known is not None and not known.finished:
            raise ValueError(f"task {name} is running already")
        task = _Task(name, work, self.clock(), limit_s, is_watchdog_enabled=is_watchdog_enabled)
        self._tasks[name] = task
        runner = self._keep(task)
        task.task = asyncio.create_task(runner, name=name)  # noqa: TID251 - the owner of all tasks

    def start_watchdog(self, is_paused: Callable[[], bool]) -> None:
        """From now on look after all of them."""
        self.is_paused = is_paused
        self.start("silence", self.watch, lambda: _LOOKS * CHECK_INTERVAL_S)

    async def watch(self, beat: Heartbeat) -> None:
        """Looks at the silence of all tasks, for ever."""
        while True:
            await self.sleep(CHECK_INTERVAL_S)
            if not self.is_paused():
                self.check_silence(CHECK_INTERVAL_S)
            beat()

    def check_silence(self, passed_s: float) -> None:
        """Ends who has been silent for too long; it begins again by itself.

        `passed_s` is what a look counts, however late it comes: time in which the whole process
        did not run is not counted as silence of a task.
        """
        for task in self._tasks.values():
            if not (task.is_watchdog_enabled and task.is_working) or not task.task:
                continue
            task.silent_s += passed_s
            if task.silent_s > task.limit_s() and not task.is_cancelled:
                task.is_cancelled, task.last_error = True, HEARTBEAT_TIMEOUT
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
        """State of each task; finished ones are left out."""
        return tuple(
            TaskFacts(
                name=task.name,
                running=task.task is not None and not task.task.done(),
                last_success_at=task.last_success_at,
                last_error=task.last_error,
                failures=task.failures,
                silent_s=task.silent_s,
                limit_s=task.limit_s() if task.is_watchdog_enabled else None,
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
            task.last_success_at = self.clock()
            task.budget.ran(self.monotonic())
            task.last_error = None
            task.failures = 0
            task.silent_s = 0.0
            task.is_watchdog_enabled = True

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
                # An outage is logged once, a bug every time with its traceback.
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

    async def _once(self, task: _Task, beat: Heartbeat) -> None:
        """Raises HeartbeatTimeoutError where it was ended for its silence."""
        task.silent_s, task.is_cancelled, task.is_working = 0.0, False, True
        own = asyncio.current_task()
        try:
            await task.work(beat)
        except (Exception, asyncio.CancelledError) as error:
            # What it does at its end may fail as well: that is no reason to begin it again.
            if own is None or not own.cancelling():
                raise
            if not task.is_cancelled or own.uncancel() > 0:
                raise asyncio.CancelledError from error  # the task itself was cancelled
            raise HeartbeatTimeoutError from None
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
    """True for known errors; a group is foreseen if all its members are."""
    if isinstance(error, ExceptionGroup):
        return all(_is_foreseen(one) for one in error.exceptions)
    return isinstance(error, ServiceError | HeartbeatTimeoutError)


def _cause(error: Exception) -> str:
    """A stable code where there is one; never the text of an unforeseen error."""
    if isinstance(error, HeartbeatTimeoutError):
        return HEARTBEAT_TIMEOUT
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error.code) if isinstance(error, ServiceError) else type(error).__name__
