"""`my-symbols configuration`: lists the settings."""

from typing import Annotated

import typer

from app.cli.lazy import load_program
from app.cli.output import AsJson

command = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Business settings and environment variables."
)


@command.command("list")
def list_settings(
    section: Annotated[str, typer.Argument(help="Prefix of the names; all by default.")] = "",
    as_json: AsJson = False,
) -> None:
    """List every setting and environment variable with default, bounds and meaning."""
    load_program("configuration list")(section=section, as_json=as_json)


@command.command()
def document() -> None:
    """Print the settings as Markdown, the content of docs/configuration.md."""
    load_program("configuration document")()
