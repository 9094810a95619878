"""`my-symbols sandbox`: runs the local exchange alone."""

from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.lazy import load_program
from app.cli.output import AsJson
from app.sandbox.options import SandboxOptions

command = typer.Typer(add_completion=False)
DEFAULTS: Final = SandboxOptions()
DEFAULT_PORT: Final = 8100
Seed = Annotated[int, typer.Option(min=0, help="Equal seeds give an equal market.")]
Replay = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False,
        help="Real daily candles (parquet or CSV) in place of a synthetic market; "
        "hours, books and funding are generated around them.",
    ),
]
ReplayFrom = Annotated[
    str | None, typer.Option(help="First day of the replay as seen by the service, YYYY-MM-DD.")
]
Contracts = Annotated[
    int | None, typer.Option(min=1, help="Number of contracts to list; all by default.")
]


@command.command()
def sandbox(
    seed: Seed = DEFAULTS.seed,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULTS.host,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="0 takes a free port.")
    ] = DEFAULT_PORT,
    speed: Annotated[
        float, typer.Option(min=0, help="Exchange seconds per real second.")
    ] = DEFAULTS.speed,
    quota: Annotated[
        int, typer.Option(min=100, help="Request weight per 30 s, as KuCoin counts it.")
    ] = DEFAULTS.quota,
    replay: Replay = None,
    replay_from: ReplayFrom = None,
    contracts: Contracts = None,
    as_json: AsJson = False,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="Stop when standard input is closed.")
    ] = False,
) -> None:
    """Serve a KuCoin-compatible exchange on this machine until Ctrl-C."""
    load_program("sandbox")(
        seed=seed,
        host=host,
        port=port,
        speed=speed,
        quota=quota,
        replay=replay,
        replay_from=replay_from,
        contracts=contracts,
        as_json=as_json,
        until_eof=until_eof,
    )
