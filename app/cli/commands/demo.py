"""`my-symbols demo`: runs local exchange and service together, up to a portfolio of ten."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.commands.sandbox import DEFAULTS, Contracts, Replay, ReplayFrom, Seed
from app.cli.exit_codes import ExitCode
from app.cli.lazy import load_program
from app.cli.output import AsJson

command = typer.Typer(add_completion=False)
DATABASE: Final = Path("var/demo.sqlite3")


@command.command()
def demo(
    seed: Seed = DEFAULTS.seed,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the service.")] = 8000,
    replay: Replay = None,
    replay_from: ReplayFrom = None,
    contracts: Contracts = None,
    database: Annotated[
        Path, typer.Option(help="SQLite file of the demo; recreated at each start.")
    ] = DATABASE,
    once: Annotated[bool, typer.Option("--once", help="Exit after the report.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a local exchange and the service, form a portfolio, print it, and keep serving."""
    started = time.monotonic()
    # Loading the service takes seconds.
    typer.echo("demo: loading the service", err=True)
    try:
        load_program("demo")(
            seed=seed,
            port=port,
            replay=replay,
            replay_from=replay_from,
            contracts=contracts,
            database=database,
            once=once,
            as_json=as_json,
            started=started,
        )
    except KeyboardInterrupt:
        typer.echo("demo: ended before the service ran", err=True)
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
