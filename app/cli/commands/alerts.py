"""`my-symbols alerts`: lists, acknowledges, snoozes and resolves alerts."""

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.client import DEFAULT_URL, Client, quote_segment
from app.cli.output import (
    AsJson,
    IdempotencyKey,
    Url,
    create_table,
    drop_missing,
    format_number,
    report_errors,
)

command = typer.Typer(help="Alerts: list, acknowledge, snooze, resolve.", no_args_is_help=True)
AlertId = Annotated[str, typer.Argument(help="Id of an alert, as in `alerts list`.")]
User = Annotated[str | None, typer.Option(help="Name that is recorded with the alert.")]
_COLUMNS = ("severity", "rule", "subject", "value>", "limit>", "since", "message", "id")


class ListedState(StrEnum):
    """State of the listed alerts."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    SNOOZED = "snoozed"
    PENDING = "pending"
    RESOLVED = "resolved"


@command.command(name="list")
def list_alerts(
    state: Annotated[ListedState, typer.Option(help="State of the alerts.")] = ListedState.OPEN,
    severity: Annotated[str | None, typer.Option(help="info, warning or critical.")] = None,
    rule: Annotated[str | None, typer.Option(help="One rule.")] = None,
    symbol: Annotated[str | None, typer.Option(help="In any spelling.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Maximum number of alerts.")] = 100,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List the open alerts, critical first, or those of another state."""
    with report_errors(as_json) as output:
        query = drop_missing({"severity": severity, "rule": rule, "symbol": symbol})
        response = asyncio.run(Client(url).get("/alerts", state=state.value, limit=limit, **query))
        if output.print_if_json(response):
            return
        alerts = response.document["items"]
        if not alerts:
            output.console.print(f"no alert is {state.value}")
            return
        output.console.print(_create_alerts_table(f"alerts: {state.value}", alerts))
        if response.document["next_cursor"] is not None:
            output.notes.print(f"there are more than {limit}")


@command.command()
def acknowledge(
    alert_id: AlertId,
    user: User = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Acknowledge an alert."""
    _change_state(alert_id, "acknowledge", {"user": user}, key, as_json, url)


@command.command()
def snooze(
    alert_id: AlertId,
    minutes: Annotated[float, typer.Option(min=1 / 60, help="Duration in minutes.")] = 60.0,
    user: User = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Silence an alert for a while."""
    body = {"seconds": round(minutes * 60), "user": user}
    _change_state(alert_id, "snooze", body, key, as_json, url)


@command.command()
def resolve(
    alert_id: AlertId,
    user: User = None,
    key: IdempotencyKey = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Resolve an alert; it opens again later while its cause persists."""
    _change_state(alert_id, "resolve", {"user": user}, key, as_json, url)


def _change_state(
    alert_id: str,
    step: str,
    body: Mapping[str, object],
    key: str | None,
    as_json: bool,
    url: str,
) -> None:
    with report_errors(as_json) as output:
        path = f"/alerts/{quote_segment(alert_id)}/{step}"
        response = asyncio.run(Client(url).post(path, drop_missing(body), key))
        if not output.print_if_json(response):
            output.console.print(
                _create_alerts_table(f"alert: {response.document['state']}", [response.document])
            )


def _create_alerts_table(title: str, alerts: list[dict[str, Any]]) -> Table:
    rows = [
        (
            alert["severity"],
            alert["rule"],
            alert["subject"],
            format_number(alert["value"], 4),
            format_number(alert["limit"], 4),
            alert["since"],
            alert["message"],
            alert["id"],
        )
        for alert in alerts
    ]
    return create_table(title, _COLUMNS, rows)
