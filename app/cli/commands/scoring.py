"""Commands about the market and its scores: sync, score, explain, convert."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.cli.client import Client, CliResponse, segment
from app.cli.commands.jobs import done
from app.cli.output import HERE, AsJson, Output, Url, number, reporting, shown, table

Symbol = Annotated[str, typer.Argument(help="Any spelling: BTCUSDT, XBTUSDTM, BTC/USDT:USDT.")]
BOARD_COLUMNS = (
    "rank>", "symbol", "score>", "confidence>", "technical>", "fundamental>", "structure>", "risk>",
)  # fmt: skip


def sync(
    history: Annotated[
        bool, typer.Option("--history", help="Also candles, books and funding that are missing.")
    ] = False,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Read all contracts from the exchange now."""
    with reporting(as_json) as output:
        what, path = "reading contracts", "/symbols/sync"
        if history:
            what, path = "filling up", "/symbols/sync?history=true"
        answer = done(output, Client(url), what, path)
        if not output.answer(answer):
            output.people.print(_facts("contracts", answer.document["result"]))


def score(
    symbol: Annotated[str | None, typer.Argument(help="Only this one; all without it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Lines of the board.")] = 20,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Score the universe now and show the best of the board."""
    with reporting(as_json) as output:
        client = Client(url)
        body = {} if symbol is None else {"symbol": symbol}
        answer = _long(output, "scoring", client, "/scoring/calculate", body)
        if output.answer(answer):
            return
        output.people.print(_facts("run", answer.document))
        if symbol is None:
            rankings = asyncio.run(client.get("/scoring/rankings", limit=limit))
            cards = rankings.document["items"]
            output.people.print(table("board", BOARD_COLUMNS, [board_row(card) for card in cards]))


def explain(symbol: Symbol, as_json: AsJson = False, url: Url = HERE) -> None:
    """Show what each factor brought to a symbol's score."""
    with reporting(as_json) as output:
        path = f"/scoring/symbol/{segment(symbol)}/explain"
        answer = asyncio.run(Client(url).get(path))
        if output.answer(answer):
            return
        said = answer.document
        rows = [
            (
                factor["family"],
                factor["name"],
                number(factor["raw"], 6),
                factor["unit"],
                number(factor["z"]),
                number(factor["weight"], 4),
                number(factor["contribution"], 5),
                factor["reason"] or "",
            )
            for factor in said["factors"]
        ]
        columns = ("family", "factor", "raw>", "unit", "z>", "weight>", "contribution>", "missing")
        output.people.print(table("score", BOARD_COLUMNS, [board_row(said["score"])]))
        z, shares = number(said["z"], 9), number(said["sum_of_contributions"], 9)
        output.people.print(f"composite z {z}, sum of the contributions {shares}")
        output.people.print(table("factors", columns, rows))


def convert(symbol: Symbol, as_json: AsJson = False, url: Url = HERE) -> None:
    """Show a symbol in every spelling."""
    with reporting(as_json) as output:
        answer = asyncio.run(Client(url).get(f"/symbols/{segment(symbol)}/formats"))
        if not output.answer(answer):
            output.people.print(_facts("spellings", answer.document))


def board_row(card: Mapping[str, Any]) -> tuple[object, ...]:
    """One line of the board in the order of BOARD_COLUMNS."""
    names = ("technical_score", "fundamental_score", "market_structure_score", "risk_score")
    return (
        card["rank"],
        card["symbol"],
        number(card["composite_score"], 4),
        number(card["confidence_level"], 2),
        *(number(card[name]) for name in names),
    )


def _long(
    output: Output, what: str, client: Client, path: str, body: Mapping[str, object]
) -> CliResponse:
    """A call that may take a while, with a moving bar for whoever waits at a terminal."""
    with output.progress() as progress:
        progress.add_task(what, total=None)
        return asyncio.run(client.post(path, body))


def _facts(title: str, document: Mapping[str, Any]) -> Any:
    """The plain values of an answer, one per line."""
    flat = [
        (name.replace("_", " "), shown(value))
        for name, value in document.items()
        if not isinstance(value, list | dict)
    ]
    return table(title, ("", ""), flat)
