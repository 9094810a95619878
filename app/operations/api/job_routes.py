"""Routes to list, inspect and cancel durable jobs."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.async_jobs import JobDetailOut, JobOut
from app.foundation.http.dependencies import (
    CursorsDep,
    Provided,
    UnversionedDep,
)
from app.foundation.http.errors import problems
from app.foundation.http.pagination import Page, cut, moment_and_id
from app.foundation.http.permissions import requires
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import CursorText, IdPath, Limit
from app.foundation.idempotency import IdempotentExecutor, StoredResponse
from app.foundation.job_service import JobService
from app.foundation.jobs import Job, JobKind, JobState
from app.foundation.principals import Role
from app.security.domain.audit import SecurityEventKind

router = api_router("jobs", "/jobs")


@router.get("", summary="Jobs")
@requires(Role.VIEWER)
async def list_jobs(
    jobs: Provided[JobService],
    cursors: CursorsDep,
    kind: Annotated[JobKind | None, Query(description="Only of this kind.")] = None,
    state: Annotated[JobState | None, Query(description="Only in this state.")] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[JobOut]:
    """Jobs of callers and of the schedule, newest first, for `retention.jobs_days` days.

    `progress` is exact only for ended jobs here; request a single job to follow it.
    """
    filters = {"kind": kind and kind.value, "state": state and state.value}
    start = cursors.decode("jobs", filters, cursor)
    before = moment_and_id(start)
    listed = await jobs.list(kind, state, before, limit + 1)
    page, last = cut(listed, limit, lambda job: (job.created_at.isoformat(), job.run_id))
    return Page(
        items=[JobOut.of(job) for job in page],
        next_cursor=None if last is None else cursors.encode("jobs", filters, last),
    )


@router.get("/{job_id}", summary="One job", responses=problems(Code.NOT_FOUND))
@requires(Role.VIEWER)
async def get_job(jobs: Provided[JobService], job_id: IdPath) -> JobDetailOut:
    """One job with its steps, progress and result."""
    return JobDetailOut.from_job(await jobs.job(job_id))


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    response_model=JobDetailOut,
    responses=problems(Code.NOT_FOUND),
)
@requires(Role.OPERATOR)
async def cancel_job(
    commands: Provided[IdempotentExecutor],
    jobs: Provided[JobService],
    command: UnversionedDep,
    job_id: IdPath,
) -> Response:
    """Cancel a job: no further step runs, finished steps stay. An ended job is unchanged."""

    def render(job: Job) -> StoredResponse:
        return keep(JobDetailOut.from_job(job))

    audited = command.audited(
        SecurityEventKind.JOB_CHANGED,
        "cancelled",
        job_id,
        lambda job: {"kind": job.kind, "state": job.state.value},
    )
    return sent(await commands.share(audited, lambda: jobs.cancel(job_id), render))
