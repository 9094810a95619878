"""`my-symbols market` and `universe`: quotes, candles and data quality; eligible contracts."""

import shutil
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from app.cli.calls import Call, changes, reads
from app.cli.choices import IntervalName, OrderSideName
from app.cli.client import quote_segment
from app.cli.output import (
    Limit,
    Output,
    Since,
    Symbol,
    Until,
    User,
    create_rows_table,
    print_sections,
)

command = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Market data of a symbol: quote, candles, book, impact, funding, quality.",
)
universe = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Eligible contracts: funnel, eligibility."
)
_CANDLE_COLUMNS: Final = {
    "opened": "opened_at",
    "open>": "open",
    "high>": "high",
    "low>": "low",
    "close>": "close",
    "volume>": "volume",
    "turnover>": "turnover",
}
_STAGE_COLUMNS: Final = {
    "rule": "name",
    "": "title",
    "limit": "limit",
    "entered>": "entered",
    "failed>": "failed",
    "passed>": "passed",
}
_RULE_COLUMNS: Final = {
    "rule": "name",
    "": "title",
    "value>": "value",
    "limit>": "limit",
    "passed": "passed",
}
PLOT_HEIGHT: Final = 20
_PLOT_WIDTH: Final = 160  # of a pipe


@reads(command, "quote")
def show_quote(symbol: Symbol) -> Call:
    """Show prices, funding, open interest, spread and depth, and the age of each."""
    return Call(f"/market/{quote_segment(symbol)}", "quote")


@reads(command, "candles")
def list_candles(
    symbol: Symbol,
    interval: Annotated[IntervalName, typer.Option(help="Length of a candle.")] = "1h",
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the candles.")] = False,
) -> Call:
    """List the newest candles of a symbol, oldest first, or draw them."""
    return Call(
        f"/market/{quote_segment(symbol)}/candles",
        f"{symbol} {interval}",
        query={"interval": interval, "limit": limit, "from": since, "to": until},
        items="items",
        columns=_CANDLE_COLUMNS,
        empty="no candle in this period",
        show=_print_plot if plot else None,
    )


@reads(command, "book")
def show_book(
    symbol: Symbol,
    levels: Annotated[int, typer.Option(min=1, max=100, help="Levels of each side.")] = 10,
) -> Call:
    """Show the order book of a symbol, best levels first, and its age."""
    return Call(f"/market/{quote_segment(symbol)}/book", "order book", query={"levels": levels})


@reads(command, "impact")
def show_impact(
    symbol: Symbol,
    notional: Annotated[str, typer.Argument(help="Value of the order, such as 10000.")],
    side: Annotated[OrderSideName, typer.Option(help="buy takes from the asks.")] = "buy",
) -> Call:
    """Show average price and slippage of an order against the known book."""
    return Call(
        f"/market/{quote_segment(symbol)}/impact",
        "price impact",
        query={"notional": notional, "side": side},
    )


@reads(command, "funding")
def list_funding(
    symbol: Symbol, since: Since = None, until: Until = None, limit: Limit = 100
) -> Call:
    """List the settled funding rates of a symbol, oldest first."""
    return Call(
        f"/market/{quote_segment(symbol)}/funding",
        f"funding of {symbol}",
        query={"limit": limit, "from": since, "to": until},
        items="items",
        columns={"settled": "settled_at", "rate>": "rate"},
        empty="no settlement in this period",
    )


@reads(command, "open-interest")
def list_open_interest(
    symbol: Symbol, since: Since = None, until: Until = None, limit: Limit = 100
) -> Call:
    """List the recorded open interest of a symbol, oldest first."""
    return Call(
        f"/market/{quote_segment(symbol)}/open-interest",
        f"open interest of {symbol}",
        query={"limit": limit, "from": since, "to": until},
        items="items",
        columns={
            "taken": "taken_at",
            "open interest>": "open_interest",
            "mark>": "mark_price",
            "turnover 24h>": "turnover_24h",
        },
        empty="no snapshot in this period",
    )


@reads(command, "quality")
def show_quality(symbol: Symbol, limit: Limit = 20) -> Call:
    """Show the verdict on a symbol's market data, its parts and its history."""
    path = f"/market/{quote_segment(symbol)}/quality"
    return Call(path, "data quality", query={"limit": limit})


@changes(command, "release")
def release(
    symbol: Symbol,
    reason: Annotated[str, typer.Option("--reason", help="Recorded in the audit log.")],
    user: User = None,
) -> Call:
    """End the quarantine of a symbol."""
    path = f"/market/{quote_segment(symbol)}/quality/release"
    return Call(path, "release", "POST", body={"reason": reason, "user": user})


@reads(universe, "funnel")
def show_funnel() -> Call:
    """Show how many contracts each rule of eligibility excludes."""
    return Call("/universe/funnel", "funnel", items="stages", show=_print_funnel)


@reads(universe, "eligibility")
def show_eligibility(symbol: Symbol) -> Call:
    """Show each rule of eligibility for a symbol: value, limit, passed."""
    return Call(
        f"/symbols/{quote_segment(symbol)}/eligibility",
        "eligibility",
        items="rules",
        show=_print_eligibility,
    )


def _print_plot(output: Output, page: Mapping[str, Any]) -> None:
    candles = list(reversed(page["items"]))
    if not candles:
        output.console.print("no candle in this period")
        return
    width = output.console.width if output.console.is_terminal else _PLOT_WIDTH
    height = min(PLOT_HEIGHT, max(shutil.get_terminal_size().lines - 4, 4))
    for line in draw_candles(candles, width, height):
        output.console.print(line, markup=False, no_wrap=True)
    first, last = candles[0]["opened_at"], candles[-1]["opened_at"]
    output.console.print(f"{page['symbol']} {page['interval']}, {first} to {last}")


def draw_candles(candles: Sequence[Mapping[str, Any]], width: int, height: int) -> list[str]:
    """Returns lines of text with one column per candle, oldest first, and a scale of prices.

    `█` is a candle that closes at its open or above, `░` one that closes below, `│` its range.
    The newest candles are drawn where not all fit the width.
    """
    highest = max(Decimal(one["high"]) for one in candles)
    lowest = min(Decimal(one["low"]) for one in candles)
    labels = [f"{highest:f}", f"{lowest:f}"]
    margin = max(map(len, labels)) + 1
    shown = candles[-max(width - margin, 1) :]
    highest = max(Decimal(one["high"]) for one in shown)
    lowest = min(Decimal(one["low"]) for one in shown)
    columns = [_draw_candle(one, lowest, highest, height) for one in shown]
    lines = ["".join(column[row] for column in columns) for row in range(height)]
    scale = [f"{highest:f}", *[""] * (height - 2), f"{lowest:f}"]
    return [f"{label:>{margin - 1}} {line}" for label, line in zip(scale, lines, strict=True)]


def _draw_candle(
    candle: Mapping[str, Any], lowest: Decimal, highest: Decimal, height: int
) -> list[str]:
    """Returns the characters of one candle from the top row to the bottom one."""
    opened, high, low, close = (Decimal(candle[name]) for name in ("open", "high", "low", "close"))

    def row(price: Decimal) -> int:
        span = highest - lowest
        return 0 if span == 0 else int((highest - price) * (height - 1) / span + Decimal("0.5"))

    body = "█" if close >= opened else "░"
    top, bottom = row(max(opened, close)), row(min(opened, close))
    column = [" "] * height
    for index in range(row(high), row(low) + 1):
        column[index] = body if top <= index <= bottom else "│"
    return column


def _print_funnel(output: Output, funnel: Mapping[str, Any]) -> None:
    title = f"funnel: {funnel['universe']} contracts, {funnel['eligible']} eligible"
    output.console.print(create_rows_table(title, funnel["stages"], _STAGE_COLUMNS))
    sectors = {"unclassified": funnel["unclassified"], **funnel["sectors"]}
    print_sections(output, "eligible contracts by sector", sectors)


def _print_eligibility(output: Output, found: Mapping[str, Any]) -> None:
    verdict = "eligible" if found["eligible"] else f"not eligible: {found['first_failure']}"
    title = f"{found['symbol']}: {verdict}"
    output.console.print(create_rows_table(title, found["rules"], _RULE_COLUMNS))
