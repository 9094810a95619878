"""`my-symbols tape`: records the exchange's messages and replays them without a network."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.lazy import load_program
from app.cli.output import AsJson

command = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Record the exchange's messages, and replay them without a network.",
)
File = Annotated[Path, typer.Argument(dir_okay=False, help="The file of the recording.")]


@command.command()
def record(
    file: File,
    for_: Annotated[
        str, typer.Option("--for", help="Duration after the first fill, as 30s, 10m, 2h or 1d.")
    ] = "10m",
    board_every: Annotated[
        str | None,
        typer.Option(help="Interval of the boards, as 1m; that of the service by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write all messages of the exchange to a new FILE and score them meanwhile.

    The recorder opens its own connections to the exchange of MYSYMBOLS_KUCOIN__BASE_URL and uses
    the business settings that are stored in the database now. Ctrl-C ends it.
    """
    load_program("tape record")(file=file, duration=for_, board_every=board_every, as_json=as_json)


@command.command()
def replay(file: File, as_json: AsJson = False) -> None:
    """Score the messages of FILE and compare the boards with those of the recording.

    No connection is opened. Exit code 1 if a board differs.
    """
    load_program("tape replay")(file=file, as_json=as_json)
