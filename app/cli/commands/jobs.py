"""Commands about jobs: list, show, cancel; and how a call that became a job is followed."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from app.cli.client import Client, CliResponse, exit_of, segment
from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import HERE, AsJson, Output, Url, number, reporting, table
from app.foundation.errors import Code
from app.foundation.http.errors import USUAL_STATUS
from app.foundation.jobs import FINAL, JobKind, JobState

jobs = typer.Typer(help="Jobs: what runs beside the requests.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="As `jobs list` shows it.")]
_LOOK_S: Final = 0.3
_COLUMNS = ("created", "job", "state", "done %>", "finished", "error")


@jobs.command(name="list")
def list_jobs(
    kind: Annotated[JobKind | None, typer.Option(help="Only of this kind.")] = None,
    state: Annotated[JobState | None, typer.Option(help="Only in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """The newest jobs."""
    with reporting(as_json) as output:
        chosen = {"kind": kind and kind.value, "state": state and state.value}
        query = {name: value for name, value in chosen.items() if value is not None}
        answer = asyncio.run(Client(url).get("/jobs", limit=limit, **query))
        if not output.answer(answer):
            output.people.print(_table(answer.document["items"]))


@jobs.command()
def show(job: JobId, as_json: AsJson = False, url: Url = HERE) -> None:
    """One job with its steps."""
    with reporting(as_json) as output:
        answer = asyncio.run(Client(url).get(f"/jobs/{segment(job)}"))
        if not output.answer(answer):
            _print(output, answer.document)


@jobs.command()
def cancel(job: JobId, as_json: AsJson = False, url: Url = HERE) -> None:
    """Stop a job; what it has done stays done."""
    with reporting(as_json) as output:
        answer = asyncio.run(Client(url).post(f"/jobs/{segment(job)}/cancel"))
        if not output.answer(answer):
            _print(output, answer.document)


def done(output: Output, client: Client, what: str, path: str, method: str = "POST") -> CliResponse:
    """Has `path` done as a job and follows it with a bar; the job as it was in the end.

    Raises CommandError with the code that the job failed with.
    """

    async def follow() -> CliResponse:
        body: dict[str, object] | None = {} if method == "POST" else None
        answer = await client.call(method, path, body=body, prefer="respond-async")
        with output.progress() as progress:
            bar = progress.add_task(what, total=100)
            while answer.document["state"] not in FINAL:
                progress.update(bar, completed=int(answer.document["progress"] * 100))
                await asyncio.sleep(_LOOK_S)
                answer = await client.get(f"/jobs/{segment(answer.document['id'])}")
            progress.update(bar, completed=100)
        return answer

    answer = asyncio.run(follow())
    job = answer.document
    if job["state"] == JobState.CANCELLED.value:
        raise CommandError(ExitCode.REFUSED, "job_cancelled", f"{job['id']} was cancelled.", dict(job))
    if job["error"] is not None:
        code = job["error"]["code"]
        status = USUAL_STATUS[Code(code)] if code in set(Code) else 500
        raise CommandError(exit_of(status), code, job["error"]["detail"], dict(job))
    return answer


def _table(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            job["created_at"],
            job["id"],
            job["state"],
            number(100 * job["progress"], 0),
            job["finished_at"],
            (job["error"] or {}).get("code"),
        )
        for job in found
    ]
    return table("jobs", _COLUMNS, rows)


def _print(output: Output, job: Mapping[str, Any]) -> None:
    output.people.print(_table([job]))
    steps = [(step["name"], step["state"], step["finished_at"]) for step in job["steps"]]
    output.people.print(table("steps", ("step", "state", "finished"), steps))
    if job["error"] is not None:
        output.people.print(job["error"]["detail"], markup=False)
