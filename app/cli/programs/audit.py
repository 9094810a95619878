"""`my-symbols audit`: proves the history without the service, or says where it breaks."""

import asyncio
from typing import Annotated, Any

import typer

from app.cli.exit_codes import CommandError, ExitCode, exit_of
from app.cli.output import AsJson, Output, reporting, table
from app.cli.programs.settings import read_settings
from app.foundation.errors import ServiceError
from app.operations.domain.history_audit import Findings
from app.operations.storage.audit import inspect

audit = typer.Typer(
    name="audit", no_args_is_help=True, help="Prove the history; the database is only read."
)

Database = Annotated[
    str | None,
    typer.Option(
        "--database", help="A database URL; default: that of the settings.", metavar="URL"
    ),
]


@audit.callback()
def _group() -> None:
    """A group, so that `verify` keeps its name while it is the only one."""


@audit.command()
def verify(database: Database = None, as_json: AsJson = False) -> None:
    """Check every event, the chain, its end, and that all that is stored follows from it."""
    with reporting(as_json) as output:
        chosen = {} if database is None else {"database": {"url": database}}
        url = read_settings(chosen).database.url
        try:
            findings = asyncio.run(inspect(url))
        except ValueError as error:
            raise CommandError(ExitCode.CONFIGURATION, "settings_invalid", str(error)) from None
        except ServiceError as error:
            raise CommandError(exit_of(error), error.code, error.detail) from None
        _show(findings, output)
    raise typer.Exit(int(ExitCode.OK if findings.ok else ExitCode.REFUSED))


def _show(findings: Findings, output: Output) -> None:
    if output.as_json:
        output.machine(_document(findings))
        return
    if findings.ok:
        said = f"{findings.events} events: no gap, every hash holds, the state follows from them"
        output.people.print(said if findings.caveat is None else f"{said}; but {findings.caveat}")
        return
    rows = [(one.seq, one.detail) for one in findings.breaks]
    output.people.print(table("history", ("seq>", "what is wrong"), rows))
    output.people.print(f"the history breaks at event {findings.first_break}")


def _document(findings: Findings) -> dict[str, Any]:
    return {
        "ok": findings.ok,
        "events": findings.events,
        "first_broken_seq": findings.first_break,
        "breaks": [{"seq": one.seq, "detail": one.detail} for one in findings.breaks],
        "caveat": findings.caveat,
    }
