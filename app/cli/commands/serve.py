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
) -> None:
    """Run the service until Ctrl-C; settings come from MYSYMBOLS_* variables."""
    load_program("serve")(host=host, port=port, role=role, tape=tape)
