"""The command line `my-symbols`: one lazy group of commands with documented exit codes."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from app.cli.credentials import CA_FILE, KEY_FILE, misspelled_variables
from app.cli.exit_codes import ExitCode
from app.cli.lazy import LazyGroup

_EPILOG = (
    "Exit codes: 0 done, 1 refused by the service (its problem code is printed), 2 wrong usage, "
    "69 service, exchange or database unavailable, 70 internal error, 74 damaged database, "
    "77 not permitted (no key, or one without the role), "
    "78 configuration, 130 interrupted."
)

application = typer.Typer(
    name="my-symbols",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="rich",
    epilog=_EPILOG,
    help="Decides which KuCoin futures symbols to hold, with what weight and size.",
)


def _print_version(is_requested: bool) -> None:
    if not is_requested:
        return
    try:
        typer.echo(version("my-symbols"))
    except PackageNotFoundError:  # run from a checkout that is not installed
        typer.echo("unknown")
    raise typer.Exit(int(ExitCode.OK))


@application.callback()
def _options(
    print_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File with the API key; else MYSYMBOLS_KEY, else the local key of this machine.",
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="File with trusted certificates for https addresses; else MYSYMBOLS_CA_FILE, else"
            " those of the system.",
        ),
    ] = None,
) -> None:
    del print_version
    for name, meant in misspelled_variables(os.environ).items():
        typer.echo(f"note: {name} has no effect; did you mean {meant}?", err=True)
    KEY_FILE.set(key_file)
    CA_FILE.set(ca_file)


def main() -> None:
    """Entry point of the installed script."""
    application()
