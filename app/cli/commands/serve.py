"""`my-symbols serve`: runs the service."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli.lazy import load_program

command = typer.Typer(add_completion=False)


@command.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Overrides MYSYMBOLS_HTTP__HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Overrides MYSYMBOLS_HTTP__PORT.")
    ] = None,
    role: Annotated[
        Literal["all", "api", "worker"] | None,
        typer.Option(help="Overrides MYSYMBOLS_ROLE; api runs no schedule and no feed."),
    ] = None,
    tape: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Also record the exchange's messages to a new file."),
    ] = None,
    logfile: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File of the log, rotated by size; overrides MYSYMBOLS_LOG__FILE.",
        ),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="For development: restart when the code changes.")
    ] = False,
) -> None:
    """Run the service until Ctrl-C; settings come from MYSYMBOLS_* variables."""
    if reload and tape is not None:
        raise typer.BadParameter("--reload and --tape exclude each other.")
    program = load_program("serve")
    program(host=host, port=port, role=role, tape=tape, logfile=logfile, reload=reload)
