"""Owns every long task: starts it, restarts it with back-off, reports on it, stops it in order."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from app.domain.errors import ServiceError
from app.services.ports import Clock
from app.services.status import TaskFacts

_log = structlog.get_logger("supervisor")

Beat = Callable[[], None]  # a task calls it whenever it has done something right
Work = Callable[[Beat], Awaitable[None]]
Delays = Callable[[], Iterator[float]]  # seconds to wait, one after the other, jitter included


@dataclass(slots=True)
class _Task:
    name: str
    work: Work
    since: datetime
    task: asyncio.Task[None] | None = None
    finished: bool = False
    last_success: datetime | None = None
    last_error: str | None = None
    failures: int = 0  # since it last succeeded
    restarts: int = 0


@dataclass(slots=True)
class Supervisor:
    """Keeps named tasks alive; the one place where an unforeseen error is caught.

    `delays` makes a new iterator of waiting times for each series of failures; when it runs out
    its last value is kept. `restarted` is told the name at each restart.
    """

    clock: Clock
    delays: Delays
    restarted: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _tasks: dict[str, _Task] = field(default_factory=dict)

    def start(self, name: str, work: Work) -> None:
        """Run `work` until it returns; when it raises, run it again after a pause.

        Raises ValueError for a name that is running already.
        """
        known = self._tasks.get(name)
        if known is not None and not known.finished:
            raise ValueError(f"task {name} is running already")
        task = _Task(name, work, self.clock())
        self._tasks[name] = task
        kept = self._keep(task)
        task.task = asyncio.create_task(kept, name=name)  # noqa: TID251 - the owner of all tasks

    async def stop(self) -> None:
        """Cancel every task, the youngest first, each one awaited before the next."""
        while self._tasks:
            _, task = self._tasks.popitem()
            if task.task is not None:
                task.task.cancel()
                await asyncio.gather(task.task, return_exceptions=True)

    async def end(self, *names: str) -> None:
        """Cancel these, each one awaited; those that do not run, or no longer, are passed over."""
        ended = [task for name in names if (task := self._tasks.pop(name, None)) is not None]
        for one in ended:
            if one.task is not None:
                one.task.cancel()
                await asyncio.gather(one.task, return_exceptions=True)

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
            )
            for task in self._tasks.values()
            if not task.finished
        )

    async def _keep(self, task: _Task) -> None:
        pauses: Iterator[float] = iter(())
        pause = 0.0

        def beat() -> None:
            task.last_success = self.clock()
            task.last_error = None
            task.failures = 0

        while True:
            try:
                await task.work(beat)
            except Exception as error:
                expected = isinstance(error, ServiceError)
                task.last_error = _cause(error)
                if task.failures == 0:
                    pauses = self.delays()
                task.failures += 1
                pause = next(pauses, pause)
                # An outage is news once and a bug is news every time, with its traceback.
                say = _log.warning if expected else _log.error
                say(
                    "task_failed",
                    task=task.name,
                    cause=task.last_error,
                    failures=task.failures,
                    retry_in_s=round(pause, 3),
                    exc_info=None if expected else error,
                )
            else:
                beat()
                task.finished = True
                return
            await self.sleep(pause)
            task.restarts += 1
            self.restarted(task.name)


def _cause(error: Exception) -> str:
    """A stable code where there is one; never the text of an unforeseen error."""
    return str(error.code) if isinstance(error, ServiceError) else type(error).__name__
