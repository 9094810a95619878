"""`my-symbols jobs`: lists, shows and cancels jobs; `run_job` follows one to its end."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from app.cli.calls import Call, IdKind, changes, reads
from app.cli.client import Client, CliResponse, quote_segment
from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_status
from app.cli.output import Limit, Output, create_table, format_number
from app.foundation.errors import Code
from app.foundation.http.protocol import USUAL_STATUS
from app.foundation.jobs import FINAL, JobKind, JobState

command = typer.Typer(
    add_completion=False, help="Background jobs: list, show and cancel them.", no_args_is_help=True
)
JobId = Annotated[str, typer.Argument(help="Id of a job, or the beginning of it.")]
JOB: Final = IdKind("job", "id", ("/jobs",))
_POLL_INTERVAL_S: Final = 0.3
_COLUMNS = ("created", "job#", "state", "done %>", "finished", "error")


@reads(command, "list")
def list_jobs(
    kind: Annotated[JobKind | None, typer.Option(help="Only of this kind.")] = None,
    state: Annotated[JobState | None, typer.Option(help="Only in this state.")] = None,
    limit: Limit = 20,
) -> Call:
    """List the newest jobs."""
    return Call(
        "/jobs",
        "jobs",
        query={"limit": limit, "kind": kind and kind.value, "state": state and state.value},
        items="items",
        show=_print_jobs,
    )


@reads(command, "show")
def show(job: JobId) -> Call:
    """Show one job with its steps."""
    return Call("/jobs/{}", "job", reference=(JOB, job), show=_print_job)


@changes(command, "cancel")
def cancel(job: JobId) -> Call:
    """Cancel a job; its finished steps are not undone."""
    return Call("/jobs/{}/cancel", "job", "POST", body={}, reference=(JOB, job), show=_print_job)


def run_job(
    output: Output,
    client: Client,
    title: str,
    path: str,
    method: str = "POST",
    query: Mapping[str, str] | None = None,
) -> CliResponse:
    """Starts the job of `path`, follows it with a progress bar and returns its final state.

    Raises CommandError with the code of a failed or cancelled job.
    """

    async def follow() -> CliResponse:
        body: dict[str, object] | None = {} if method == "POST" else None
        response = await client.call(method, path, query=query, body=body, prefer="respond-async")
        with output.create_progress() as progress:
            bar = progress.add_task(title, total=100)
            while response.document["state"] not in FINAL:
                progress.update(bar, completed=int(response.document["progress"] * 100))
                await asyncio.sleep(_POLL_INTERVAL_S)
                response = await client.get(f"/jobs/{quote_segment(response.document['id'])}")
            progress.update(bar, completed=100)
        return response

    response = asyncio.run(follow())
    job = response.document
    if job["state"] == JobState.CANCELLED.value:
        detail = f"{job['id']} was cancelled."
        raise CommandError(ExitCode.REFUSED, "job_cancelled", detail, dict(job))
    if job["error"] is not None:
        code = job["error"]["code"]
        status = USUAL_STATUS[Code(code)] if code in set(Code) else 500
        raise CommandError(exit_code_of_status(status), code, job["error"]["detail"], dict(job))
    return response


def _print_jobs(output: Output, page: Mapping[str, Any]) -> None:
    output.console.print(_create_jobs_table(page["items"]))


def _create_jobs_table(jobs: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            job["created_at"],
            job["id"],
            job["state"],
            format_number(100 * job["progress"], 0),
            job["finished_at"],
            (job["error"] or {}).get("code"),
        )
        for job in jobs
    ]
    return create_table("jobs", _COLUMNS, rows)


def _print_job(output: Output, job: Mapping[str, Any]) -> None:
    output.console.print(_create_jobs_table([job]))
    steps = [(step["name"], step["state"], step["finished_at"]) for step in job["steps"]]
    output.console.print(create_table("steps", ("step", "state", "finished"), steps))
    if job["error"] is not None:
        output.console.print(job["error"]["detail"], markup=False)
