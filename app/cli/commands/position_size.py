"""The command that asks how many lots a balance means, and what holds the position back."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

import typer

from app.cli.client import Client, segment
from app.cli.commands.scoring import Symbol
from app.cli.output import HERE, AsJson, Output, Url, reporting, shown, table

_FIGURES: Final = {
    "lots": "lots",
    "quantity": "quantity",
    "notional": "notional",
    "wanted": "wanted_notional",
    "rounding error": "rounding_error",
    "price": "price",
    "weight %": "weight_percentage",
    "leverage": "leverage",
    "margin": "margin",
    "liquidation price": "liquidation_price",
    "binding cap": "binding_cap",
}
_MEMBER: Final = ("symbol", "weight_percentage", "lots", "notional", "binding_cap", "reason")
_HEADS: Final = ("symbol", "weight %>", "lots>", "notional>", "cap", "reason")
_CAP: Final = ("name", "value", "limit", "unit", "source")


def _decimal(text: str) -> Decimal:
    """Exactly what was written; nothing is rounded on its way to the service."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"{text!r} is not a number.") from None
    if not number.is_finite():
        raise typer.BadParameter(f"{text!r} is not a finite number.")
    return number


def exact_option(help_text: str, *names: str) -> Any:
    """An option whose number is sent as it was written."""
    return typer.Option(*names, parser=_decimal, metavar="NUMBER", help=help_text)


def size(
    symbol: Symbol,
    balance: Annotated[Decimal, exact_option("Equity in the quote currency.", "--balance")],
    leverage: Annotated[Decimal | None, exact_option("1 without.", "--leverage")] = None,
    price: Annotated[Decimal | None, exact_option("In place of the mark price.", "--price")] = None,
    confidence: Annotated[
        Decimal | None, exact_option("0 to 1; scales it.", "--confidence")
    ] = None,
    wins: Annotated[int | None, typer.Option(min=0, help="For Kelly; needs all three.")] = None,
    losses: Annotated[int | None, typer.Option(min=0, help="For Kelly; needs all three.")] = None,
    payoff_ratio: Annotated[
        Decimal | None, exact_option("Mean gain over mean loss; needs all three.", "--payoff-ratio")
    ] = None,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """How many lots of a symbol a balance means, and which caps hold it back."""
    record = (wins, losses, payoff_ratio)
    if any(one is None for one in record) and any(one is not None for one in record):
        raise typer.BadParameter("--wins, --losses and --payoff-ratio are given together.")
    wanted = {
        "account_balance": balance,
        "leverage": leverage,
        "price": price,
        "confidence": confidence,
        "wins": wins,
        "losses": losses,
        "payoff_ratio": payoff_ratio,
    }
    query = {name: shown(value) for name, value in wanted.items() if value is not None}
    path = f"/portfolio/symbols/{segment(symbol)}/position-size"
    with reporting(as_json) as output:
        answer = asyncio.run(Client(url).get(path, **query))
        if not output.answer(answer):
            _print(output, answer.document)


def sizes(
    balance: Annotated[Decimal, exact_option("Equity in the quote currency.", "--balance")],
    leverage: Annotated[Decimal | None, exact_option("1 without.", "--leverage")] = None,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """How many lots of every member a balance means, counted together."""
    wanted = {"account_balance": balance, "leverage": leverage}
    query = {name: shown(value) for name, value in wanted.items() if value is not None}
    with reporting(as_json) as output:
        answer = asyncio.run(Client(url).get("/portfolio/sizes", **query))
        if not output.answer(answer):
            made = answer.document
            rows = [tuple(one[name] for name in _MEMBER) for one in made["sizes"]]
            output.people.print(table(f"lots for {made['account_balance']}", _HEADS, rows))


def _print(output: Output, made: Mapping[str, Any]) -> None:
    rows = [(title, made[name]) for title, name in _FIGURES.items()]
    output.people.print(table(f"{made['symbol']} ({made['contract']})", ("", ">"), rows))
    caps = [tuple(one[name] for name in _CAP) for one in made["limits"]]
    if caps:
        output.people.print(table("caps", ("cap", "value>", "limit>", "unit", "source"), caps))
    if made["reason"] is not None:
        output.people.print(
            f"no lots: {made['reason']}" if not made["lots"] else made["reason"], markup=False
        )
