"""Publishes start, progress and end of durable runs as job events."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from app.foundation.errors import Code, ServiceError
from app.foundation.events import JobChange, JobChanged
from app.foundation.job_service import JobNews
from app.foundation.jobs import Document, JobState
from app.foundation.ports import Clock, Journal
from app.workers.durable import DurableRun

STEP_S: Final = 1.0
_LEAST: Final = 0.01  # share of the whole: a smaller step is not published


def report_progress(
    run: DurableRun,
    news: JobNews,
    clock: Clock,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> DurableRun:
    """The same run, with its start, progress and end published.

    A run that another process resumes is published as started again. A run that stops with its
    process has not ended; a cancellation is published by its caller.
    """

    async def work(journal: Journal, payload: Document) -> Document:
        reporter = _ReportingJournal(journal, run, news, clock, sleep)
        await reporter.publish(JobChange.STARTED, JobState.RUNNING)
        try:
            result = await run.work(reporter, payload)
        except Exception as error:
            code = error.code if isinstance(error, ServiceError) else Code.INTERNAL_ERROR
            await reporter.publish(JobChange.ENDED, JobState.FAILED, code.value)
            raise
        reporter.share(1, 1)
        await reporter.publish(JobChange.ENDED, JobState.DONE)
        return result

    return replace(run, work=work)


@dataclass(slots=True)
class _ReportingJournal:
    """Journal whose progress is published while a step runs."""

    journal: Journal
    run: DurableRun
    news: JobNews
    clock: Clock
    sleep: Callable[[float], Awaitable[None]]
    _step: str | None = None
    _part: float = 0.0
    _published: float = field(default=0.0)

    @property
    def run_id(self) -> str:
        return self.journal.run_id

    async def step(self, name: str, action: Callable[[], Awaitable[Document]]) -> Document:
        self._step, self._part = name, 0.0
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch())
                try:
                    return await self.journal.step(name, action)
                finally:
                    watching.cancel()
        except ExceptionGroup as several:
            # The step's own: the group has no other member that fails.
            raise several.exceptions[0] from None

    def share(self, done: int, total: int) -> None:
        self._part = done / total if total else 0.0
        self.journal.share(done, total)

    async def publish(self, change: JobChange, state: JobState, error: str | None = None) -> None:
        self._published = self._whole()
        progress = 1.0 if state is JobState.DONE else round(min(self._published, 0.99), 4)
        job = (self.run_id, self.run.kind, change, state)
        await self.news.tell(JobChanged(*job, self._step, progress, error, self.clock()))

    def _whole(self) -> float:
        if self._step is None:
            return 0.0
        return (self.run.steps.index(self._step) + self._part) / len(self.run.steps)

    async def _watch(self) -> None:
        while True:
            await self.sleep(STEP_S)
            if self._whole() - self._published >= _LEAST:
                await self.publish(JobChange.PROGRESS, JobState.RUNNING)
