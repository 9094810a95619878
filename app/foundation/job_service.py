"""Jobs as callers see them: begin one, look at it, stop it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.foundation.errors import ServiceError
from app.foundation.events import JobChange, JobChanged
from app.foundation.jobs import Document, Job, JobKind, JobState
from app.foundation.ports import Clock, Jobs, NewId
from app.foundation.sql.database import Database

_log = structlog.get_logger("jobs")


@dataclass(frozen=True, slots=True)
class JobNews:
    """A courtesy: no job fails because nobody could be told of it."""

    database: Database

    async def tell(self, event: JobChanged) -> None:
        try:
            async with self.database.write() as unit:
                unit.announce(event)
        except ServiceError as error:
            _log.warning("job_news_lost", job=event.job_id, cause=error.code.value)


@dataclass(frozen=True, slots=True)
class JobService:
    """One job of a kind at a time: who asks for the same meanwhile is shown that one."""

    jobs: Jobs
    clock: Clock
    new_id: NewId
    news: JobNews

    async def begin(
        self, kind: JobKind, payload: Document, once: str | None = None, about: str = ""
    ) -> Job:
        """The job that does it. The same `once` gives the same job, also when it has ended.

        Where jobs of one kind differ, `about` says what is the same one.

        Raises UnavailableError while the store of the jobs cannot be reached.
        """
        name = self.new_id() if once is None else hashlib.sha256(once.encode()).hexdigest()[:32]
        begun = await self.jobs.enqueue(
            kind.value,
            payload,
            run_id=f"{kind.value}:{name}",
            key=f"{kind.value}:{about}" if about else kind.value,
        )
        return await self.jobs.job(begun.run_id)

    async def job(self, run_id: str) -> Job:
        """Raises NotFoundError, UnavailableError."""
        return await self.jobs.job(run_id)

    async def list(
        self,
        kind: JobKind | None,
        state: JobState | None,
        before: tuple[datetime, str] | None,
        limit: int,
    ) -> tuple[Job, ...]:
        """The newest first, without their steps. Raises UnavailableError."""
        named = None if kind is None else kind.value
        return await self.jobs.jobs(kind=named, state=state, before=before, limit=limit)

    async def cancel(self, run_id: str) -> Job:
        """No further step is begun; one that has ended already stays as it is.

        Raises NotFoundError, UnavailableError.
        """
        before = await self.jobs.job(run_id)
        job = await self.jobs.cancel(run_id)
        if job.state is JobState.CANCELLED and not before.is_final:
            told = (run_id, job.kind, JobChange.ENDED, job.state, None, job.progress, None)
            await self.news.tell(JobChanged(*told, self.clock()))
        return job

    async def forget_old(self, keep: timedelta) -> int:
        """Drops jobs that ended longer ago; gives their number."""
        number = 0
        while dropped := await self.jobs.forget(self.clock() - keep):
            number += dropped
        return number
