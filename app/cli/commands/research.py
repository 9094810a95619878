"""`my-symbols backtest`, `sweep`, `validate`, `trials` and `history download`."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.commands.portfolio_reads import history
from app.cli.lazy import load_program
from app.cli.output import AsJson

backtests = typer.Typer(add_completion=False)
sweeps = typer.Typer(add_completion=False)
validation = typer.Typer(add_completion=False)
File = Annotated[
    Path,
    typer.Argument(exists=True, dir_okay=False, help="Daily candles: .parquet, .csv, .csv.gz."),
]
Venue = Annotated[str | None, typer.Option(help="Venue, if the file has several.")]
Begin = Annotated[
    str | None, typer.Option("--from", help="First day, as 2024-01-31; the earliest possible.")
]
End = Annotated[
    str | None, typer.Option("--to", help="Last day, as 2024-12-31; the last of the file.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Setting, as replacement.confirmations=2; repeat it."
    ),
]
Document = Annotated[
    Path | None,
    typer.Option("--configuration", exists=True, dir_okay=False, help="Settings as JSON."),
]


@backtests.command()
def backtest(  # noqa: PLR0917  # options, all by name
    ctx: typer.Context,
    file: File,
    venue: Venue = None,
    begin: Begin = None,
    end: End = None,
    every: Annotated[int, typer.Option(min=1, max=90, help="Days between two decisions.")] = 7,
    offset: Annotated[int, typer.Option(min=0, max=89, help="Days before the first one.")] = 0,
    all_offsets: Annotated[
        bool, typer.Option("--all-offsets", help="Run every offset and show their spread.")
    ] = False,
    changes: Changes = None,
    configuration: Document = None,
    fee_bp: Annotated[float, typer.Option(min=0.0, max=1000.0, help="Fee of a trade in bp.")] = 6.0,
    spread_bp: Annotated[
        float, typer.Option(min=0.0, max=1000.0, help="Half the spread and the impact in bp.")
    ] = 4.0,
    draws: Annotated[int, typer.Option(min=200, max=10_000, help="Random portfolios.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random portfolios.")] = 1,
    disasters: Annotated[
        list[str] | None,
        typer.Option(
            "--disaster",
            metavar="LISTING=DAY",
            help="Rank before a disaster and its cost, as LUNAUSDT=2022-05-09; repeat it.",
        ),
    ] = None,
    steps: Annotated[
        Path | None, typer.Option("--steps", help="Write value and changes of each day as CSV.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the portfolio over FILE with the functions of the live service, after costs.

    Each run is logged as a trial in the database of the settings; the number of trials deflates
    the next result. Settings are those of the database, with the changes given here.
    """
    load_program("backtest")(ctx.params | {"changes": changes or [], "disasters": disasters or []})


@sweeps.command()
def sweep(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="History, days and values as TOML."),
    ],
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes; by default one a core.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", file_okay=False, help="Folder of the runs; FILE without its suffix."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a trial for every combination of the values in FILE.

    Each trial is logged as soon as it ends; a second start runs only those that are missing.
    """
    load_program("sweep")(ctx.params)


@validation.command()
def validate(  # noqa: PLR0917  # options, all by name
    ctx: typer.Context,
    file: File,
    venue: Venue = None,
    begin: Begin = None,
    end: End = None,
    periods: Annotated[int, typer.Option(min=1, max=12, help="Equal parts of the time.")] = 3,
    horizon: Annotated[int, typer.Option(min=1, max=60, help="Days of the returns.")] = 7,
    changes: Changes = None,
    configuration: Document = None,
    is_stored: Annotated[
        bool,
        typer.Option("--store", help="Store the cards as the evidence of the algorithm version."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the card of every factor: proven, weak, unproven or harmful, with its evidence.

    A factor is proven with a t of 3 in two of three periods, weak with 2, and harmful with -2.
    Stored cards are the labels that the service shows, and the range of the live evidence.
    """
    load_program("validate")(ctx.params | {"changes": changes or []})


@history.command()
def download(  # options, all by name
    ctx: typer.Context,
    output: Annotated[
        Path, typer.Option("--output", file_okay=False, metavar="DIR", help="Folder of the files.")
    ],
    begin: Annotated[str, typer.Option("--from", help="First day, as 2024-01-31.")],
    end: Annotated[
        str | None, typer.Option("--to", help="Last day, as 2024-12-31; the last closed bar.")
    ] = None,
    interval: Annotated[str, typer.Option(help="1d, 1h, or both with a comma.")] = "1d",
    symbols: Annotated[
        str | None,
        typer.Option(help="Any spellings with commas; all linear perpetual contracts without it."),
    ] = None,
    database: Annotated[
        bool,
        typer.Option("--database", help="Also store bars older than those of the database."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download closed candles and funding of the exchange into files that `backtest` reads.

    A second start asks only for missing bars; a report names gaps, refused and missing symbols.
    """
    load_program("history download")(ctx.params)


trials = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="The log of trials: list and show; nothing deletes from it.",
)


@trials.command(name="list")
def list_trials(as_json: AsJson = False) -> None:
    """List all trials, the newest first."""
    load_program("trials list")(as_json=as_json)


@trials.command()
def show(
    ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Ids of trials, or their beginnings.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show trials side by side: parameters and results."""
    load_program("trials show")(trials=ids, as_json=as_json)
