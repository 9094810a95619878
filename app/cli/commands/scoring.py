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
    "factor", "raw>", "unit", "z>", "in family>", "of family>", "confidence>", "direct>",
    "ranking>", "contribution>", "missing",
)  # fmt: skip
_FAMILY_COLUMNS: Final = (
    "family", "weighted sum>", "z>", "score>", "weight>", "contribution>",
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
        console = output.console
        console.print(create_table("score", BOARD_COLUMNS, [board_row(explanation["score"])]))
        factors = [_factor_row(factor) for factor in explanation["factors"]]
        console.print(create_table("factors", _FACTOR_COLUMNS, factors))
        families = [_family_row(family) for family in explanation["families"]]
        console.print(create_table("families", _FAMILY_COLUMNS, families))
        composite = explanation["composite"]
        console.print(
            f"weighted sum of the families {format_number(composite['weighted_sum'], 6)},"
            f" ranked: composite z {format_number(composite['composite_z'], 6)}"
        )
        console.print(
            f"times confidence {format_number(composite['confidence'], 6)}:"
            f" z {format_number(explanation['z'], 9)},"
            f" sum of the contributions {format_number(explanation['sum_of_contributions'], 9)}"
        )
        console.print(explanation["formula"], markup=False)
        console.print(explanation["why_percentiles_differ"], markup=False)


def _factor_row(factor: Mapping[str, Any]) -> tuple[object, ...]:
    """Returns one line in the order of _FACTOR_COLUMNS."""
    return (
        factor["name"],
        format_number(factor["raw"], 6),
        factor["unit"],
        format_number(factor["z"], 6),
        format_number(factor["weight_in_family"], 6),
        format_number(factor["weight_of_family"], 6),
        format_number(factor["confidence"], 6),
        format_number(factor["direct"], 6),
        format_number(factor["ranking"], 6),
        format_number(factor["contribution"], 6),
        factor["reason"] or "",
    )


def _family_row(family: Mapping[str, Any]) -> tuple[object, ...]:
    """Returns one line in the order of _FAMILY_COLUMNS."""
    return (
        family["family"],
        format_number(family["weighted_sum"], 6),
        format_number(family["z"], 6),
        format_number(family["score"], 4),
        format_number(family["weight"], 6),
        format_number(family["contribution"], 6),
    )


def board_row(score: Mapping[str, Any]) -> tuple[object, ...]:
    """Returns one line of the board in the order of BOARD_COLUMNS."""
    return (
        score["rank"],
        score["symbol"],
        format_number(score["composite_score"], 4),
        format_number(score["confidence_level"], 2),
        *(format_number(score[family]) for family in _FAMILIES),
    )
