"""Jobs as callers see them: begin one, look at it, stop it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.domain.jobs import Document, Job, JobKind, JobState
from app.services.ports import Clock, Jobs, NewId

KEEP: Final = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class JobService:
    """One job of a kind at a time: who asks for the same meanwhile is shown that one."""

    jobs: Jobs
    clock: Clock
    new_id: NewId

    async def begin(self, kind: JobKind, payload: Document, once: str | None = None) -> Job:
        """The job that does it. The same `once` gives the same job, also when it has ended.

        Raises UnavailableError while the store of the jobs cannot be reached.
        """
        wish = self.new_id() if once is None else hashlib.sha256(once.encode()).hexdigest()[:32]
        begun = await self.jobs.enqueue(
            kind.value, payload, run_id=f"{kind.value}:{wish}", key=kind.value
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
        return await self.jobs.cancel(run_id)

    async def forget_old(self) -> int:
        """Drops jobs that ended longer ago than they are kept; gives their number."""
        return await self.jobs.forget(self.clock() - KEEP)
