"""Supervisor of all background tasks: starts, restarts within limits, reports and stops them."""

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

MAX_CRASHES: Final = 5  # per window; these restart after the ordinary pause
WINDOW_S: Final = 60.0
COOLDOWN_S: Final = 300.0


@dataclass(slots=True)
class RestartLimiter:
    """Restart budget of one task; outages do not count, because they end by themselves.

    All times are monotonic: a step of the wall clock has no effect.
    """

    failed_until_s: float | None = None  # no restart before this time
    crashes: int = 0  # crashes before the task failed, and since
    _recent: deque[float] = field(default_factory=deque)

    def record_crash(self, at_s: float, pause_s: float) -> float:
        """Returns seconds until the restart: `pause_s`, or the cooldown after too many crashes."""
        self._recent.append(at_s)
        while self._recent[0] <= at_s - WINDOW_S:
            self._recent.popleft()
        if len(self._recent) <= MAX_CRASHES and self.failed_until_s is None:
            return pause_s
        self.crashes = max(self.crashes + 1, len(self._recent))
        self.failed_until_s = at_s + COOLDOWN_S
        return COOLDOWN_S

    def record_heartbeat(self, at_s: float) -> None:
        """Ends the failed state by a heartbeat at least one minute after the cooldown."""
        if self.failed_until_s is not None and at_s >= self.failed_until_s + WINDOW_S:
            self.failed_until_s, self.crashes = None, 0


_log = structlog.get_logger("supervisor")

Heartbeat = Callable[[], None]  # called by a task after each success
Work = Callable[[Heartbeat], Awaitable[None]]
Limit = Callable[[], float]  # seconds
Delays = Callable[[], Iterator[float]]  # successive waits in seconds, jitter included


CHECK_INTERVAL_S: Final = 5.0
_MISSED_CHECKS: Final = 12  # missed checks before the watchdog itself counts as silent
HEARTBEAT_TIMEOUT: Final = "task_stuck"


class HeartbeatTimeoutError(Exception):
    """A task sent no heartbeat for too long and was cancelled."""


@dataclass(slots=True)
class _Task:
    name: str
    work: Work
    since: datetime
    limit_s: Limit
    rest_s: Limit
    task: asyncio.Task[None] | None = None
    finished: bool = False
    last_success_at: datetime | None = None
    succeeded_s: float | None = None  # the same moment by monotonic time
    last_error: str | None = None
    failures: int = 0  # since it last succeeded
    restarts: int = 0
    is_watchdog_enabled: bool = True
    is_working: bool = False
    is_cancelled: bool = False  # cancelled for its silence, and still running
    silent_s: float = 0.0
    budget: RestartLimiter = field(default_factory=RestartLimiter)


@dataclass(slots=True)
class Supervisor:
    """Runs named tasks; the one place where an unexpected error is caught.

    A task that crashes too often within a minute counts as failed and cools down.

    `delays` makes a new iterator of waiting times for each series of failures; its last value
    repeats. `on_restart` receives the name at each restart. Silence does not count while
    `is_paused` is True: a task that waits for a known outage is not stuck.
    """

    clock: Clock
    delays: Delays
    on_restart: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    is_paused: Callable[[], bool] = lambda: False
    monotonic: Monotonic = time.monotonic
    _tasks: dict[str, _Task] = field(default_factory=dict)

    def start(
        self,
        name: str,
        work: Work,
        limit_s: Limit,
        *,
        rest_s: Limit = lambda: 0.0,
        is_watchdog_enabled: bool = True,
    ) -> None:
        """Runs `work` until it returns; restarts it after a pause when it raises.

        A task without a heartbeat for `limit_s` is cancelled and restarted; without
        `is_watchdog_enabled` that counts from its first heartbeat. A task counts as silent only
        beyond `rest_s`, its usual wait between two heartbeats.
        Raises ValueError if a task of this name is running.
        """
        known = self._tasks.get(name)
        if known is not None and not known.finished:
            raise ValueError(f"task {name} is running already")
        task = _Task(
            name, work, self.clock(), limit_s, rest_s, is_watchdog_enabled=is_watchdog_enabled
        )
        self._tasks[name] = task
        runner = self._run_task(task)
        task.task = asyncio.create_task(runner, name=name)  # noqa: TID251 - the owner of all tasks

    def start_watchdog(self, is_paused: Callable[[], bool]) -> None:
        """Starts the watchdog over all tasks."""
        self.is_paused = is_paused
        self.start("watchdog", self.watch, lambda: _MISSED_CHECKS * CHECK_INTERVAL_S)

    async def watch(self, beat: Heartbeat) -> None:
        """Checks the silence of all tasks until cancelled."""
        while True:
            await self.sleep(CHECK_INTERVAL_S)
            if not self.is_paused():
                self.check_silence(CHECK_INTERVAL_S)
            beat()

    def check_silence(self, passed_s: float) -> None:
        """Cancels tasks that were silent for too long; each restarts by itself.

        Each check counts `passed_s`, however late it runs: time in which the whole process was
        suspended does not count as silence of a task.
        """
        for task in self._tasks.values():
            if not (task.is_watchdog_enabled and task.is_working) or not task.task:
                continue
            task.silent_s += passed_s
            if task.silent_s > task.limit_s() and not task.is_cancelled:
                task.is_cancelled, task.last_error = True, HEARTBEAT_TIMEOUT
                _log.error("task_stuck", task=task.name, at=_waiting_at(task.task))
                task.task.cancel()

    async def stop(self) -> None:
        """Cancels all tasks, the youngest first, and awaits each before the next."""
        while self._tasks:
            _, task = self._tasks.popitem()
            if task.task is not None:
                task.task.cancel()
                await asyncio.gather(task.task, return_exceptions=True)

    async def stop_tasks(self, *names: str) -> None:
        """Cancels these tasks and awaits each; skips tasks that do not run.

        A cancelled caller may call it again: tasks that have not ended are still known.
        """
        for name in names:
            task = self._tasks.get(name)
            if task is not None and task.task is not None:
                task.task.cancel()
                await asyncio.gather(task.task, return_exceptions=True)
            self._tasks.pop(name, None)

    async def wait(self, name: str) -> None:
        """Waits until the task has returned by itself."""
        task = self._tasks[name].task
        if task is not None:
            await asyncio.shield(task)

    def facts(self) -> tuple[TaskFacts, ...]:
        """Returns the state of each unfinished task."""
        return tuple(
            TaskFacts(
                name=task.name,
                running=task.task is not None and not task.task.done(),
                last_success_at=task.last_success_at,
                last_error=task.last_error,
                failures=task.failures,
                silent_s=task.silent_s,
                limit_s=task.limit_s() if task.is_watchdog_enabled else None,
                rest_s=task.rest_s(),
                crashes=task.budget.crashes,
                failed_until=self._to_wall_time(task.budget.failed_until_s),
                since_success_s=(
                    None if task.succeeded_s is None else self.monotonic() - task.succeeded_s
                ),
            )
            for task in self._tasks.values()
            if not task.finished
        )

    def _to_wall_time(self, at_s: float | None) -> datetime | None:
        """Converts a monotonic time to the current wall clock."""
        if at_s is None:
            return None
        return self.clock() + timedelta(seconds=at_s - self.monotonic())

    async def _run_task(self, task: _Task) -> None:
        pauses: Iterator[float] = iter(())
        pause = 0.0

        def beat() -> None:
            task.last_success_at, task.succeeded_s = self.clock(), self.monotonic()
            task.budget.record_heartbeat(task.succeeded_s)
            task.last_error = None
            task.failures = 0
            task.silent_s = 0.0
            task.is_watchdog_enabled = True

        while True:
            try:
                await self._run_once(task, beat)
            except Exception as error:
                is_expected = _is_expected(error)
                task.last_error = _cause(error)
                if task.failures == 0:
                    pauses = self.delays()
                task.failures += 1
                pause = next(pauses, pause)
                wait_s = pause if is_expected else task.budget.record_crash(self.monotonic(), pause)
                # Only unexpected errors are logged with a traceback.
                log = _log.warning if is_expected else _log.error
                log(
                    "task_failed",
                    task=task.name,
                    cause=task.last_error,
                    failures=task.failures,
                    retry_in_s=round(wait_s, 3),
                    exc_info=None if is_expected else error,
                )
            else:
                beat()
                task.finished = True
                return
            await self.sleep(wait_s)
            task.restarts += 1
            self.on_restart(task.name)

    async def _run_once(self, task: _Task, beat: Heartbeat) -> None:
        """Runs the work once. Raises HeartbeatTimeoutError if it was cancelled for its silence."""
        task.silent_s, task.is_cancelled, task.is_working = 0.0, False, True
        own = asyncio.current_task()
        try:
            await task.work(beat)
        except (Exception, asyncio.CancelledError) as error:
            # Clean-up of a cancelled task may fail too, which is no reason for a restart.
            if own is None or not own.cancelling():
                raise
            if not task.is_cancelled or own.uncancel() > 0:
                raise asyncio.CancelledError from error  # the task itself was cancelled
            raise HeartbeatTimeoutError from None
        finally:
            task.is_working = False


def _waiting_at(task: asyncio.Task[None]) -> str:
    """Returns the innermost function in which the task waits, with the line."""
    awaited: Any = task.get_coro()
    frame = None
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or frame
        awaited = getattr(awaited, "cr_await", None)
    return "" if frame is None else f"{frame.f_code.co_qualname}:{frame.f_lineno}"


def _is_expected(error: Exception) -> bool:
    """Returns True for known errors, and for a group of known errors."""
    if isinstance(error, ExceptionGroup):
        return all(_is_expected(one) for one in error.exceptions)
    return isinstance(error, ServiceError | HeartbeatTimeoutError)


def _cause(error: Exception) -> str:
    """Returns a stable code or the class name, never the text of an unexpected error."""
    if isinstance(error, HeartbeatTimeoutError):
        return HEARTBEAT_TIMEOUT
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error.code) if isinstance(error, ServiceError) else type(error).__name__
