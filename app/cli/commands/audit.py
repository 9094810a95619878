"""`my-symbols audit`: verifies the history without the service."""

from typing import Annotated

import typer

from app.cli.lazy import load_program
from app.cli.output import AsJson

command = typer.Typer(no_args_is_help=True, help="Verify the history; read-only.")
Database = Annotated[
    str | None,
    typer.Option(
        "--database", help="Database URL; that of the settings by default.", metavar="URL"
    ),
]


@command.callback()
def _group() -> None:
    """Makes Typer keep the name of the only command of a group."""


@command.command()
def verify(database: Database = None, as_json: AsJson = False) -> None:
    """Check every event, the hash chain, its end, and that the stored state follows from it."""
    load_program("audit verify")(database=database, as_json=as_json)
