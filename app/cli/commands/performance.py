"""`my-symbols performance`, `positions` and `report`: results, figures and the report."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from app.cli.calls import Call, changes, reads
from app.cli.client import DEFAULT_URL, Client, quote_segment
from app.cli.commands.jobs import run_job
from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import (
    AsJson,
    Limit,
    Output,
    Reason,
    Since,
    Symbol,
    Until,
    Url,
    User,
    create_table,
    drop_missing,
    format_number,
    report_errors,
)

command = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Results: equity, trades, attribution, figures; book a result.",
)
positions = typer.Typer(add_completion=False)
report = typer.Typer(add_completion=False)
_POSITION_COLUMNS: Final = {
    "symbol": "symbol",
    "weight %>": "weight_percentage",
    "entry>": "entry_mark_price",
    "mark>": "mark_price",
    "notional>": "notional",
    "unrealized>": "unrealized",
    "realized>": "realized_pnl",
    "performance>": "performance_since_inclusion",
    "max drawdown>": "max_drawdown_since_inclusion",
    "reason": "reason",
}
_EQUITY_COLUMNS: Final = {
    "at": "at",
    "equity>": "equity",
    "P&L of the day>": "daily_pnl",
    "return>": "daily_return",
    "reason": "reason",
}
_TRADE_COLUMNS: Final = {
    "occurred": "occurred_at",
    "symbol": "symbol",
    "P&L>": "pnl",
    "fees>": "fees",
    "funding>": "funding",
    "net>": "net",
    "currency": "currency",
    "trade id": "trade_id",
}
_MARK_COLUMNS: Final = {
    "at": "at",
    "equity>": "equity",
    "version>": "version",
    "slot": "slot",
    "reason": "reason",
}
_OUTCOME_COLUMNS: Final = {
    "at": "at",
    "old": "old_symbol",
    "new": "new_symbol",
    "old return>": "old_return",
    "new return>": "new_return",
    "net>": "net",
    "outperformed": "outperformed",
    "reason": "reason",
}
_FIGURES: Final = (
    "growth", "max_drawdown", "sharpe", "sharpe_standard_error", "sortino", "calmar", "win_rate",
    "profit_factor",
)  # fmt: skip
_HYPOTHETICAL_FIGURES: Final = ("growth", "max_drawdown", "sharpe", "sortino", "calmar")
# table -> column -> field of the report
_REPORT_TABLES: Final = {
    "equity": {"at": "at", "equity>": "equity", "P&L of the day>": "daily_pnl"},
    "positions": {
        "symbol": "symbol",
        "weight %>": "weight_percentage",
        "P&L since inclusion>": "pnl_since_inclusion",
    },
    "replacements": {
        "at": "at",
        "old": "old_symbol",
        "new": "new_symbol",
        "difference>": "difference",
    },
}


@reads(positions)
def list_positions(since: Since = None, until: Until = None) -> Call:
    """List the positions with entry, mark price and results."""
    return Call(
        "/portfolio/positions",
        "positions",
        query={"from": since, "to": until},
        items="positions",
        columns=_POSITION_COLUMNS,
        empty="the portfolio has no position",
    )


@reads(command, "equity")
def list_equity(since: Since = None, until: Until = None, limit: Limit = 100) -> Call:
    """List the equity at the end of each day, with its P&L."""
    return Call(
        "/portfolio/equity",
        "equity",
        query={"limit": limit, "from": since, "to": until},
        items="items",
        columns=_EQUITY_COLUMNS,
        empty="no equity in this period",
    )


@reads(command, "trades")
def list_trades(
    symbol: Annotated[str | None, typer.Option(help="Only of this symbol.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
) -> Call:
    """List the booked results, newest first."""
    return Call(
        "/portfolio/trades",
        "trades",
        query={"limit": limit, "symbol": symbol, "from": since, "to": until},
        items="items",
        columns=_TRADE_COLUMNS,
        empty="no result is booked in this period",
    )


@changes(command, "book")
def book_result(
    symbol: Symbol,
    trade: Annotated[str, typer.Argument(help="Id of the trade; the same id is booked once.")],
    pnl: Annotated[str, typer.Option(help="Price P&L before fees and funding, such as -12.5.")],
    occurred: Annotated[str, typer.Option("--at", help="Time, such as 2026-01-31T00:00:00Z.")],
    currency: Annotated[str, typer.Option(help="Settlement currency of the contract.")] = "USDT",
    fees: Annotated[str | None, typer.Option(help="Fees paid.")] = None,
    funding: Annotated[str | None, typer.Option(help="Funding received; paid is negative.")] = None,
    reason: Reason = None,
    user: User = None,
) -> Call:
    """Book the realised result of a trade."""
    body = {
        "trade_id": trade,
        "pnl": pnl,
        "currency": currency,
        "fees": fees,
        "funding": funding,
        "occurred_at": occurred,
        "reason": reason,
        "user": user,
    }
    path = f"/portfolio/symbols/{quote_segment(symbol)}/performance"
    return Call(path, "booked", "POST", body=body)


@reads(command, "attribution")
def show_attribution(
    days: Annotated[int, typer.Option(min=1, max=3_650, help="Length of the period.")] = 30,
) -> Call:
    """Show the contribution of each symbol and sector to the change of equity."""
    return Call("/portfolio/performance-attribution", "attribution", query={"days": days})


@reads(command, "marks")
def list_marks(since: Since = None, until: Until = None, limit: Limit = 100) -> Call:
    """List the stored valuations of the portfolio."""
    return Call(
        "/portfolio/marks",
        "valuations",
        query={"limit": limit, "from": since, "to": until},
        items="items",
        columns=_MARK_COLUMNS,
        empty="no valuation in this period",
    )


@reads(command, "analytics")
def show_analytics() -> Call:
    """Show scores, performance, drawdown and ratios in short."""
    return Call("/portfolio/analytics", "analytics")


@reads(command, "metrics")
def show_metrics() -> Call:
    """Show risk, concentration, performance and correlation of the portfolio."""
    return Call("/portfolio/metrics", "metrics")


@reads(command, "replacements")
def list_outcomes() -> Call:
    """List past replacements with the returns of the old and the new symbol."""
    return Call(
        "/portfolio/replacements/ledger",
        "replacements",
        items="replacements",
        columns=_OUTCOME_COLUMNS,
        empty="nothing was replaced yet",
    )


@report.command()
def show_report(
    since: Since = None,
    until: Until = None,
    form: Annotated[
        Literal["text", "json", "html"],
        typer.Option("--format", help="Tables, one JSON document, or a self-contained page."),
    ] = "text",
    file: Annotated[
        Path | None,
        typer.Option("--output", dir_okay=False, help="New file for JSON or page; else stdout."),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show equity, figures and positions of a period, or write them to a file."""
    if as_json and form == "html":
        raise typer.BadParameter("--json and --format html exclude each other.")
    if file is not None and form == "text" and not as_json:
        raise typer.BadParameter("--output needs --format json or --format html.")
    is_document = as_json or form == "json"
    with report_errors(is_document) as output:
        client = Client(url)
        query = drop_missing({"from": since, "to": until})
        if form == "html":
            _write(output, asyncio.run(client.fetch_page("/portfolio/report", **query)), file)
        elif is_document:
            answer = asyncio.run(client.get("/portfolio/report", **query, format="json"))
            _write(output, answer.text, file)
        else:
            response = run_job(output, client, "report", "/portfolio/report", "GET", query)
            _print_report(output, response.document["result"])


def _write(output: Output, text: str, file: Path | None) -> None:
    if file is None:
        output.print_document(text)
        return
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        detail = f"{file} cannot be written ({error.strerror})."
        raise CommandError(ExitCode.CONFIGURATION, "file_not_written", detail) from None
    output.notes.print(f"The report is in {file}.", markup=False)


def _print_report(output: Output, document: Mapping[str, Any]) -> None:
    figures = document["figures"]
    rows = [(name, format_number(figures[name], 4)) for name in _FIGURES]
    output.console.print(create_table("figures", ("", ""), rows))
    if figures["ratios_reason"] is not None:
        output.console.print(f"no ratios: {figures['ratios_reason']}")
    hypothetical = document["hypothetical"]
    rows = [
        (name, format_number(hypothetical[f"hypothetical_{name}"], 4))
        for name in _HYPOTHETICAL_FIGURES
    ]
    title = "hypothetical: today's weights over the past, not earned"
    output.console.print(create_table(title, ("", ""), rows))
    for name, columns in _REPORT_TABLES.items():
        lines = [tuple(line[field] for field in columns.values()) for line in document[name]]
        output.console.print(create_table(name, tuple(columns), lines))
    output.console.print(
        f"version {document['version']}, created at {document['created_at']}; "
        "as a page: report --format html --output FILE"
    )
