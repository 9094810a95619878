"""`my-symbols jobs`: lists, shows and cancels jobs; `run_job` follows one to its end."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from app.cli.client import DEFAULT_URL, Client, CliResponse, quote_segment
from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_status
from app.cli.output import (
    AsJson,
    Limit,
    Output,
    Url,
    create_table,
    drop_missing,
    format_number,
    report_errors,
)
from app.foundation.errors import Code
from app.foundation.http.protocol import USUAL_STATUS
from app.foundation.jobs import FINAL, JobKind, JobState

command = typer.Typer(help="Background jobs: list, show and cancel them.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="Id of a job, as in `jobs list`.")]
_POLL_INTERVAL_S: Final = 0.3
_COLUMNS = ("created", "job", "state", "done %>", "finished", "error")


@command.command(name="list")
def list_jobs(
    kind: Annotated[JobKind | None, typer.Option(help="Only of this kind.")] = None,
    state: Annotated[JobState | None, typer.Option(help="Only in this state.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the newest jobs."""
    with report_errors(as_json) as output:
        query = drop_missing({"kind": kind and kind.value, "state": state and state.value})
        response = asyncio.run(Client(url).get("/jobs", limit=limit, **query))
        if not output.print_if_json(response):
            output.console.print(_create_jobs_table(response.document["items"]))


@command.command()
def show(job: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show one job with its steps."""
    with report_errors(as_json) as output:
        response = asyncio.run(Client(url).get(f"/jobs/{quote_segment(job)}"))
        if not output.print_if_json(response):
            _print_job(output, response.document)


@command.command()
def cancel(job: JobId, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Cancel a job; its finished steps are not undone."""
    with report_errors(as_json) as output:
        response = asyncio.run(Client(url).post(f"/jobs/{quote_segment(job)}/cancel"))
        if not output.print_if_json(response):
            _print_job(output, response.document)


def run_job(
    output: Output, client: Client, title: str, path: str, method: str = "POST"
) -> CliResponse:
    """Starts the job of `path`, follows it with a progress bar and returns its final state.

    Raises CommandError with the code of a failed or cancelled job.
    """

    async def follow() -> CliResponse:
        body: dict[str, object] | None = {} if method == "POST" else None
        response = await client.call(method, path, body=body, prefer="respond-async")
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
