"""`my-symbols symbols`: contracts of the exchange and their spellings."""

import asyncio
from typing import Annotated

import typer

from app.cli.client import DEFAULT_URL, Client, quote_segment
from app.cli.commands import sectors
from app.cli.commands.jobs import run_job
from app.cli.output import AsJson, Symbol, Url, create_fact_table, report_errors

command = typer.Typer(no_args_is_help=True, help="Contracts of the exchange and their spellings.")
command.add_typer(sectors.command, name="sectors")


@command.command()
def sync(
    history: Annotated[
        bool, typer.Option("--history", help="Also fetch missing candles, books and funding.")
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Read all contracts from the exchange now."""
    with report_errors(as_json) as output:
        title, path = "syncing contracts", "/symbols/sync"
        if history:
            title, path = "loading history", "/symbols/sync?history=true"
        response = run_job(output, Client(url), title, path)
        if not output.print_if_json(response):
            output.console.print(create_fact_table("contracts", response.document["result"]))


@command.command()
def convert(symbol: Symbol, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show a symbol in every spelling."""
    with report_errors(as_json) as output:
        response = asyncio.run(Client(url).get(f"/symbols/{quote_segment(symbol)}/formats"))
        if not output.print_if_json(response):
            output.console.print(create_fact_table("spellings", response.document))
