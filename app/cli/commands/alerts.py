"""Commands about alerts: list, acknowledge, snooze and resolve them."""

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.client import Client, segment
from app.cli.output import HERE, AsJson, Url, number, reporting, table

alerts = typer.Typer(help="Alerts: look at them, and say something to one.", no_args_is_help=True)
AlertId = Annotated[str, typer.Argument(help="The id that `alerts list` shows.")]
User = Annotated[str | None, typer.Option(help="Who says so; recorded with the alert.")]
Key = Annotated[
    str | None, typer.Option("--key", help="Idempotency-Key: the same key has one effect.")
]
_COLUMNS = ("severity", "rule", "about", "value>", "limit>", "since", "message", "id")


class State(StrEnum):
    """Which alerts are listed."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    SNOOZED = "snoozed"
    PENDING = "pending"
    RESOLVED = "resolved"


@alerts.command(name="list")
def list_alerts(
    state: Annotated[State, typer.Option(help="One state.")] = State.OPEN,
    severity: Annotated[str | None, typer.Option(help="info, warning or critical.")] = None,
    rule: Annotated[str | None, typer.Option(help="One rule.")] = None,
    symbol: Annotated[str | None, typer.Option(help="In any spelling.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 100,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """The open ones, critical first; or those of another state."""
    with reporting(as_json) as output:
        chosen = {"severity": severity, "rule": rule, "symbol": symbol}
        query: dict[str, str | int] = {name: text for name, text in chosen.items() if text}
        answer = asyncio.run(Client(url).get("/alerts", state=state.value, limit=limit, **query))
        if output.answer(answer):
            return
        found = answer.document["items"]
        if not found:
            output.people.print(f"no alert is {state.value}")
            return
        output.people.print(_table(f"alerts: {state.value}", found))
        if answer.document["next_cursor"] is not None:
            output.notes.print(f"there are more than {limit}")


@alerts.command()
def ack(
    alert_id: AlertId, user: User = None, key: Key = None, as_json: AsJson = False, url: Url = HERE
) -> None:
    """Take care of an alert."""
    _move(alert_id, "acknowledge", {"user": user}, key, as_json, url)


@alerts.command()
def snooze(
    alert_id: AlertId,
    minutes: Annotated[float, typer.Option(min=1 / 60, help="For how long.")] = 60.0,
    user: User = None,
    key: Key = None,
    as_json: AsJson = False,
    url: Url = HERE,
) -> None:
    """Put an alert aside for a while."""
    body = {"seconds": round(minutes * 60), "user": user}
    _move(alert_id, "snooze", body, key, as_json, url)


@alerts.command()
def resolve(
    alert_id: AlertId, user: User = None, key: Key = None, as_json: AsJson = False, url: Url = HERE
) -> None:
    """End an alert; while its cause stands it comes back later."""
    _move(alert_id, "resolve", {"user": user}, key, as_json, url)


def _move(
    alert_id: str,
    step: str,
    body: Mapping[str, object],
    key: str | None,
    as_json: bool,
    url: str,
) -> None:
    with reporting(as_json) as output:
        given = {name: value for name, value in body.items() if value is not None}
        path = f"/alerts/{segment(alert_id)}/{step}"
        answer = asyncio.run(Client(url).post(path, given, key))
        if not output.answer(answer):
            output.people.print(_table(f"alert: {answer.document['state']}", [answer.document]))


def _table(title: str, found: list[dict[str, Any]]) -> Table:
    rows = [
        (
            one["severity"],
            one["rule"],
            one["subject"],
            number(one["value"], 4),
            number(one["limit"], 4),
            one["since"],
            one["message"],
            one["id"],
        )
        for one in found
    ]
    return table(title, _COLUMNS, rows)
