"""`my-symbols scoring`: scores of the universe and their explanation."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from app.cli.client import DEFAULT_URL, Client, quote_segment
from app.cli.output import (
    AsJson,
    Symbol,
    Url,
    create_fact_table,
    create_table,
    format_number,
    report_errors,
)

command = typer.Typer(no_args_is_help=True, help="Scores of the universe and their explanation.")
BOARD_COLUMNS: Final = (
    "rank>", "symbol", "score>", "confidence>", "technical>", "fundamental>", "structure>", "risk>",
)  # fmt: skip
_FACTOR_COLUMNS: Final = (
    "family", "factor", "raw>", "unit", "z>", "weight>", "contribution>", "missing",
)  # fmt: skip
_FAMILIES: Final = ("technical_score", "fundamental_score", "market_structure_score", "risk_score")


@command.command()
def calculate(
    symbol: Annotated[
        str | None, typer.Argument(help="One symbol; the whole universe by default.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Lines of the board.")] = 20,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Score the universe now and show the best of the board."""
    with report_errors(as_json) as output:
        client = Client(url)
        body = {} if symbol is None else {"symbol": symbol}
        with output.create_progress() as progress:
            progress.add_task("scoring", total=None)
            response = asyncio.run(client.post("/scoring/calculate", body))
        if output.print_if_json(response):
            return
        output.console.print(create_fact_table("run", response.document))
        if symbol is None:
            rankings = asyncio.run(client.get("/scoring/rankings", limit=limit))
            rows = [board_row(score) for score in rankings.document["items"]]
            output.console.print(create_table("board", BOARD_COLUMNS, rows))


@command.command()
def explain(symbol: Symbol, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Show the contribution of each factor to a symbol's score."""
    with report_errors(as_json) as output:
        path = f"/scoring/symbol/{quote_segment(symbol)}/explain"
        response = asyncio.run(Client(url).get(path))
        if output.print_if_json(response):
            return
        explanation = response.document
        rows = [
            (
                factor["family"],
                factor["name"],
                format_number(factor["raw"], 6),
                factor["unit"],
                format_number(factor["z"]),
                format_number(factor["weight"], 4),
                format_number(factor["contribution"], 5),
                factor["reason"] or "",
            )
            for factor in explanation["factors"]
        ]
        score = [board_row(explanation["score"])]
        output.console.print(create_table("score", BOARD_COLUMNS, score))
        composite = format_number(explanation["z"], 9)
        total = format_number(explanation["sum_of_contributions"], 9)
        output.console.print(f"composite z {composite}, sum of the contributions {total}")
        output.console.print(create_table("factors", _FACTOR_COLUMNS, rows))


def board_row(score: Mapping[str, Any]) -> tuple[object, ...]:
    """Returns one line of the board in the order of BOARD_COLUMNS."""
    return (
        score["rank"],
        score["symbol"],
        format_number(score["composite_score"], 4),
        format_number(score["confidence_level"], 2),
        *(format_number(score[family]) for family in _FAMILIES),
    )
