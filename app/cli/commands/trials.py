"""`my-symbols trials`: the log of backtests, which nothing deletes."""

from typing import Annotated

import typer

from app.cli.lazy import load_program
from app.cli.output import AsJson

command = typer.Typer(
    no_args_is_help=True, help="The log of trials: list and show; nothing deletes from it."
)


@command.command(name="list")
def list_trials(as_json: AsJson = False) -> None:
    """List all trials, the newest first."""
    load_program("trials list")(as_json=as_json)


@command.command()
def show(
    trials: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Ids of trials, or their beginnings.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show trials side by side: parameters and results."""
    load_program("trials show")(trials=trials, as_json=as_json)
