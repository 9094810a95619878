"""HTTP models of jobs, and the 202 response of a call that becomes a job."""

from types import MappingProxyType
from typing import Annotated, Any, Final, Self

from fastapi import Depends, Header, Request
from pydantic import Field
from starlette.responses import Response

from app.foundation.http.protocol import PREFIX
from app.foundation.http.responses import keep, sent
from app.foundation.http.schemas import Json, Out, Share, UtcTime
from app.foundation.idempotency import Command, IdempotentExecutor, StoredResponse
from app.foundation.job_service import JobService
from app.foundation.jobs import Document, Job, JobError, JobKind, JobState, JobStep, StepState

_ASYNC: Final = "respond-async"
JOB_CHANGED: Final = "job_changed"  # kind of the entry in the audit log
_NOTHING: Final[Document] = MappingProxyType({})


class JobErrorOut(Out):
    code: str = Field(description="A stable error code.", examples=["exchange_unavailable"])
    detail: str = Field(description="Cause, in words.")

    @classmethod
    def of(cls, error: JobError) -> Self:
        return cls(code=error.code, detail=error.detail)


class JobOut(Out):
    """One job; times are null until the event has happened."""

    id: str = Field(
        examples=["contract_sync:8d0ae8a3-2d0b-4c1c-9c39-0a53a4b56a55"],
        description="Identifier of the job.",
    )
    kind: str = Field(examples=[JobKind.CONTRACT_SYNC.value], description="Kind of the job.")
    state: JobState = Field(description="State of the job.")
    progress: Share = Field(description="Completed part; 1 exactly in state done.")
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None
    result: Json = Field(description="Result; null before the end and after a failure.")
    error: JobErrorOut | None = Field(description="Cause of a failure.")

    @classmethod
    def of(cls, job: Job) -> Self:
        return cls(**_fields(job))


class JobStepOut(Out):
    """One step; a finished step never runs again, even if the process dies."""

    name: str = Field(examples=["contracts"], description="Name of the step.")
    state: StepState = Field(description="State of the step.")
    started_at: UtcTime | None
    finished_at: UtcTime | None
    error: JobErrorOut | None = Field(description="Cause of a failure; null without one.")

    @classmethod
    def of(cls, step: JobStep) -> Self:
        return cls(
            name=step.name,
            state=step.state,
            started_at=step.started_at,
            finished_at=step.finished_at,
            error=None if step.error is None else JobErrorOut.of(step.error),
        )


class JobDetailOut(JobOut):
    """One job with its steps."""

    steps: list[JobStepOut] = Field(description="Steps in their order.")

    @classmethod
    def from_job(cls, job: Job) -> Self:
        return cls(**_fields(job), steps=[JobStepOut.of(step) for step in job.steps])


def _fields(job: Job) -> dict[str, Any]:
    return {
        "id": job.run_id,
        "kind": job.kind,
        "state": job.state,
        "progress": job.progress,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "result": None if job.result is None else dict(job.result),
        "error": None if job.error is None else JobErrorOut.of(job.error),
    }


# OpenAPI responses of an operation that can become a job.
ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "model": JobDetailOut,
        "description": "With `Prefer: respond-async`: the job that runs the operation.",
        "headers": {
            "Location": {"description": "Address of the job.", "schema": {"type": "string"}},
            "Preference-Applied": {
                "description": f"`{_ASYNC}`.",
                "schema": {"type": "string"},
            },
        },
    }
}


async def prefers_job(
    request: Request,
    prefer: Annotated[
        str | None,
        Header(
            alias="Prefer",
            max_length=255,
            description=f"`{_ASYNC}`: answer 202 with the job at once. Others are ignored.",
        ),
    ] = None,
) -> bool:
    """Returns True if the caller prefers a job to waiting (Prefer: respond-async)."""
    del prefer  # declared for the documentation; the header may occur more than once
    named = ",".join(request.headers.getlist("prefer")).split(",")
    return any(one.split(";")[0].strip().lower() == _ASYNC for one in named)


PrefersJobDep = Annotated[bool, Depends(prefers_job)]


async def begun(
    commands: IdempotentExecutor,
    jobs: JobService,
    command: Command,
    kind: JobKind,
    payload: Document = _NOTHING,
) -> Response:
    """Returns 202 with the job of that kind and its address; the same key gives the same job."""
    scope = ",".join(f"{name}={value}" for name, value in sorted(payload.items()))
    key = None if command.idempotency_key is None else command.idempotency_key.key

    def render(job: Job) -> StoredResponse:
        headers = {"Location": f"{PREFIX}/jobs/{job.run_id}", "Preference-Applied": _ASYNC}
        return keep(JobDetailOut.from_job(job), 202, headers)

    audited = command.audited(
        JOB_CHANGED, "started", kind.value, lambda job: {"job_id": job.run_id, **payload}
    )
    return sent(
        await commands.share(audited, lambda: jobs.begin(kind, payload, key, scope), render)
    )
