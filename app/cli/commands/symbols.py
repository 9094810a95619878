"""`my-symbols symbols`: contracts of the exchange and their spellings."""

import asyncio
from typing import Annotated, Final

import typer

from app.cli.calls import Call, reads
from app.cli.choices import ContractState
from app.cli.client import DEFAULT_URL, Client, quote_segment
from app.cli.commands.jobs import run_job
from app.cli.output import AsJson, Symbol, Url, create_fact_table, report_errors

command = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Contracts of the exchange and their spellings.",
)
_SYMBOL_COLUMNS: Final = {
    "symbol": "symbol",
    "contract": "contract",
    "status": "status",
    "sector": "sector",
    "eligible": "eligible",
    "excluded by": "excluded_by",
    "member": "in_portfolio",
}


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


@reads(command, "list")
def list_symbols(
    search: Annotated[str | None, typer.Option(help="Text of the name.")] = None,
    eligible: Annotated[
        bool | None, typer.Option("--eligible/--excluded", help="Only these.")
    ] = None,
    status: Annotated[ContractState | None, typer.Option(help="Only in this state.")] = None,
    sector: Annotated[str | None, typer.Option(help="Only of this sector.")] = None,
    members: Annotated[
        bool | None, typer.Option("--members/--others", help="Only of the portfolio, or not.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Number of symbols.")] = 100,
) -> Call:
    """List the contracts with sector and eligibility."""
    query = {
        "limit": limit,
        "search": search,
        "eligible": eligible,
        "status": status,
        "sector": sector,
        "in_portfolio": members,
    }
    empty = "no such contract"
    return Call(
        "/symbols", "symbols", query=query, items="items", columns=_SYMBOL_COLUMNS, empty=empty
    )


@reads(command, "show")
def show_symbol(symbol: Symbol) -> Call:
    """Show the specification of a contract, its history and the latest score."""
    return Call(f"/symbols/{quote_segment(symbol)}", "symbol")


@reads(command, "validate")
def validate(
    symbols: Annotated[list[str], typer.Argument(help="Symbols in any spelling.")],
) -> Call:
    """Show which symbols are known, and what the others may have meant."""
    return Call("/symbols/validate", "symbols", "POST", body={"symbols": symbols})
