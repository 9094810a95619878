"""Job use cases: start a job, read its state, cancel it."""

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
class JobEventPublisher:
    """Publishes job events; a failure to publish is logged and never fails the job."""

    database: Database

    async def publish(self, event: JobChanged) -> None:
        try:
            async with self.database.write() as unit:
                unit.publish_after_commit(event)
        except ServiceError as error:
            _log.warning("job_event_not_published", job=event.job_id, cause=error.code.value)


@dataclass(frozen=True, slots=True)
class JobService:
    """Starts at most one job of a kind at a time; a second request gets the running one."""

    jobs: Jobs
    clock: Clock
    new_id: NewId
    events: JobEventPublisher

    async def begin(
        self,
        kind: JobKind,
        payload: Document,
        request_key: str | None = None,
        scope: str = "",
    ) -> Job:
        """Starts the job. The same `request_key` gives the same job, even after it has ended.

        `scope` separates jobs of one kind that may run at the same time.
        Raises UnavailableError while the job store is unreachable.
        """
        name = (
            self.new_id()
            if request_key is None
            else hashlib.sha256(request_key.encode()).hexdigest()[:32]
        )
        enqueued = await self.jobs.enqueue(
            kind.value,
            payload,
            run_id=f"{kind.value}:{name}",
            key=f"{kind.value}:{scope}" if scope else kind.value,
        )
        return await self.jobs.job(enqueued.run_id)

    async def job(self, run_id: str) -> Job:
        """Returns one job. Raises NotFoundError, UnavailableError."""
        return await self.jobs.job(run_id)

    async def list(
        self,
        kind: JobKind | None,
        state: JobState | None,
        before: tuple[datetime, str] | None,
        limit: int,
    ) -> tuple[Job, ...]:
        """Returns jobs newest first, without their steps. Raises UnavailableError."""
        kind_name = None if kind is None else kind.value
        return await self.jobs.jobs(kind=kind_name, state=state, before=before, limit=limit)

    async def cancel(self, run_id: str) -> Job:
        """Cancels a job: it starts no further step; a finished job stays as it is.

        Raises NotFoundError, UnavailableError.
        """
        before = await self.jobs.job(run_id)
        job = await self.jobs.cancel(run_id)
        if job.state is JobState.CANCELLED and not before.is_final:
            change = (run_id, job.kind, JobChange.ENDED, job.state, None, job.progress, None)
            await self.events.publish(JobChanged(*change, self.clock()))
        return job

    async def forget_old(self, keep: timedelta) -> int:
        """Deletes jobs that ended longer than `keep` ago; returns their number."""
        number = 0
        while deleted := await self.jobs.forget(self.clock() - keep):
            number += deleted
        return number
