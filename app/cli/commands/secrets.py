"""`my-symbols secrets`: sealed secrets in the database, and the keys that seal them."""

from typing import Annotated

import typer

from app.cli.lazy import load_program
from app.cli.output import AsCsv, AsJson, refuse_two_forms

command = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Sealed secrets and their keys; works on the database of the settings, also beside a"
    " running service.",
)


@command.command("new-key")
def new_key() -> None:
    """Print a new sealing key, for MYSYMBOLS_SECURITY__SEALING_KEYS or its file."""
    load_program("secrets new-key")()


@command.command("list")
def list_secrets(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the number of secrets by kind and key; no secret and no key is shown."""
    refuse_two_forms(as_json, as_csv)
    load_program("secrets list")(as_json=as_json, as_csv=as_csv)


@command.command()
def rotate(as_json: AsJson = False) -> None:
    """Seal every secret anew under the newest key; an interrupted run may be repeated."""
    load_program("secrets rotate")(as_json=as_json)


@command.command()
def discard(
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            prompt="Empty every secret that no configured key opens?",
            help="Do not ask.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Empty secrets whose key is lost, so that the service starts; enter them again then."""
    load_program("secrets discard")(yes=yes, as_json=as_json)
