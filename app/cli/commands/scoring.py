"""`my-symbols scoring`: scores of the universe and their explanation."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from app.cli.calls import Call, Plan, changes, reads
from app.cli.choices import ScoreKind
from app.cli.client import DEFAULT_URL, Client, quote_segment
from app.cli.output import (
    AsJson,
    Limit,
    Output,
    Reason,
    Symbol,
    Url,
    User,
    create_fact_table,
    create_table,
    format_number,
    report_errors,
)

command = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Scores of the universe and their explanation."
)
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
RunId = Annotated[
    str | None, typer.Argument(help="Id of a run; by default that of the current board.")
]
_ID_CHARS: Final = 36
_SCORE_COLUMNS: Final = {
    "calculated": "calculation_timestamp",
    "rank>": "rank",
    "score>": "composite_score",
    "confidence>": "confidence_level",
    "technical>": "technical_score",
    "fundamental>": "fundamental_score",
    "structure>": "market_structure_score",
    "risk>": "risk_score",
    "status": "status",
}
_EVIDENCE_COLUMNS: Final = {
    "level": "level",
    "name": "name",
    "days>": "days",
    "IC>": "ic",
    "t>": "ic_t",
    "coverage>": "coverage",
    "spread>": "quantile_spread",
    "turnover>": "turnover",
    "label": "label",
    "missing": "reason",
}
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


@reads(command)
def explain(symbol: Symbol) -> Call:
    """Show the contribution of each factor to a symbol's score."""
    path = f"/scoring/symbol/{quote_segment(symbol)}/explain"
    return Call(path, "factors", items="factors", show=_print_explanation)


def _print_explanation(output: Output, explanation: Mapping[str, Any]) -> None:
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
    for name, part in composite["neutralisation"].items():
        console.print(f"neutralisation, {name}: {format_number(part, 6)}")
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


@reads(command, "rankings")
def list_rankings(
    kind: Annotated[
        ScoreKind, typer.Option("--by", help="Score to rank by: the composite or one family.")
    ] = "COMPOSITE",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Lines of the board.")] = 20,
    eligible_only: Annotated[
        bool, typer.Option("--eligible-only", help="Leave out symbols that are not eligible.")
    ] = False,
) -> Call:
    """List the board: rank, symbol and scores."""
    query = {"algorithm_type": kind, "limit": limit, "eligible_only": eligible_only}
    return Call("/scoring/rankings", "board", query=query, items="items", show=_print_board)


@reads(command, "history")
def list_scores(symbol: Symbol, limit: Limit = 50) -> Call:
    """List the scores of a symbol, newest first."""
    return Call(
        f"/scoring/symbol/{quote_segment(symbol)}/scores",
        f"scores of {symbol}",
        query={"limit": limit},
        items="items",
        columns=_SCORE_COLUMNS,
        empty=f"no score of {symbol} is stored",
    )


@reads(command, "algorithms")
def list_algorithms() -> Call:
    """List the algorithms with their parameters."""
    return Call("/scoring/algorithms", "algorithms", items="items")


@reads(command, "validation")
def show_validation(
    horizon: Annotated[int, typer.Option(min=1, max=60, help="Days of a return.")] = 7,
    days: Annotated[
        int, typer.Option(min=1, max=400, help="Complete UTC days to look back.")
    ] = 365,
) -> Call:
    """Show how the live scores foretold returns: composite, families and factors."""
    return Call(
        "/scoring/validation",
        "evidence of the live scores",
        query={"horizon": horizon, "days": days},
        items="items",
        columns=_EVIDENCE_COLUMNS,
        empty="no complete board of a past day is stored",
    )


@changes(command, "set-algorithm")
def set_algorithm(
    family_weight: Annotated[
        list[str] | None,
        typer.Option(metavar="FAMILY=SHARE", help="All four families; they add up to 1."),
    ] = None,
    factor_weight: Annotated[
        list[str] | None,
        typer.Option(metavar="FACTOR=SHARE", help="Share of its family; may be repeated."),
    ] = None,
    impact_notional: Annotated[
        float | None, typer.Option(min=0, help="Order size in the quote currency for impact.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the algorithm.")] = "cross_sectional",
    reason: Reason = None,
    user: User = None,
) -> Call:
    """Change weights or parameters of an algorithm."""
    body = {
        "family_weights": _parse_shares(family_weight),
        "factor_weights": _parse_shares(factor_weight),
        "impact_notional": impact_notional,
        "reason": reason,
        "user": user,
    }
    return Call(f"/scoring/algorithms/{quote_segment(name)}", "algorithm", "PUT", body=body)


@reads(command, "run")
def show_run(run: RunId = None) -> Plan:
    """Show a scoring run: inputs, coverage, spread and reasons."""

    async def show(client: Client) -> Call:
        return Call(f"/scoring/runs/{quote_segment(await _find_run(client, run))}", "run")

    return show


@changes(command, "replay")
def replay(run: RunId = None) -> Plan:
    """Calculate a run again from its stored inputs and compare both."""

    async def repeat(client: Client) -> Call:
        run_id = await _find_run(client, run)
        return Call(f"/scoring/runs/{quote_segment(run_id)}/replay", "replay", "POST")

    return repeat


async def _find_run(client: Client, run: str | None) -> str:
    """Returns the complete id of a run; without one, or for its beginning, that of the board."""
    if run is not None and len(run) >= _ID_CHARS:
        return run
    current = str((await client.get("/scoring/rankings", limit=1)).document["run_id"])
    return current if run is None or current.startswith(run.lower()) else run


def _parse_shares(texts: list[str] | None) -> dict[str, float] | None:
    if not texts:
        return None
    shares = {}
    for text in texts:
        name, _, share = text.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not NAME=SHARE, such as risk=0.25.") from None
    return shares


def _print_board(output: Output, rankings: Mapping[str, Any]) -> None:
    title = f"board of {rankings['calculated_at']}, run {rankings['run_id']}"
    rows = [board_row(score) for score in rankings["items"]]
    output.console.print(create_table(title, BOARD_COLUMNS, rows))


def board_row(score: Mapping[str, Any]) -> tuple[object, ...]:
    """Returns one line of the board in the order of BOARD_COLUMNS."""
    return (
        score["rank"],
        score["symbol"],
        format_number(score["composite_score"], 4),
        format_number(score["confidence_level"], 2),
        *(format_number(score[family]) for family in _FAMILIES),
    )
