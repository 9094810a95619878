"""`my-symbols alerts`: lists and changes alerts, and changes their rules."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, get_args

import typer
from rich.table import Table

from app.cli.calls import Call, IdKind, changes, reads
from app.cli.choices import AlertRuleName, AlertSeverity, AlertStateName
from app.cli.output import Output, Reason, User, create_table, format_number

command = typer.Typer(
    add_completion=False,
    help="Alerts: list, show, acknowledge, snooze, resolve; their rules.",
    no_args_is_help=True,
)
ALERT: Final = IdKind(
    "alert", "id", tuple(f"/alerts?state={state}" for state in get_args(AlertStateName))
)
AlertId = Annotated[str, typer.Argument(help="Id of an alert, or the beginning of it.")]
_RULE_COLUMNS: Final = {
    "rule": "name",
    "enabled": "enabled",
    "severity": "severity",
    "alerts": "comparison",
    "limit>": "limit",
    "clears at>": "clear_limit",
    "duration s>": "duration_s",
    "cooldown s>": "cooldown_s",
}
_COLUMNS = ("severity", "rule", "subject", "value>", "limit>", "since", "message", "id#")


@reads(command, "list")
def list_alerts(
    state: Annotated[AlertStateName, typer.Option(help="State of the alerts.")] = "open",
    severity: Annotated[AlertSeverity | None, typer.Option(help="One severity.")] = None,
    rule: Annotated[AlertRuleName | None, typer.Option(help="One rule.")] = None,
    symbol: Annotated[str | None, typer.Option(help="In any spelling.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Maximum number of alerts.")] = 100,
) -> Call:
    """List the open alerts, critical first, or those of another state."""
    query = {"state": state, "limit": limit, "severity": severity, "rule": rule, "symbol": symbol}

    def show(output: Output, page: Mapping[str, Any]) -> None:
        alerts = page["items"]
        text = f"no alert is {state}"
        output.console.print(_create_alerts_table(f"alerts: {state}", alerts) if alerts else text)

    return Call("/alerts", "alerts", query=query, items="items", show=show)


@reads(command, "show")
def show_alert(alert: AlertId) -> Call:
    """Show an alert with its times and the people who changed it."""
    return Call("/alerts/{}", "alert", reference=(ALERT, alert))


@changes(command, "acknowledge")
def acknowledge(alert: AlertId, user: User = None) -> Call:
    """Acknowledge an alert."""
    return _change_state(alert, "acknowledge", {"user": user})


@changes(command, "snooze")
def snooze(
    alert: AlertId,
    minutes: Annotated[float, typer.Option(min=1 / 60, help="Duration in minutes.")] = 60.0,
    user: User = None,
) -> Call:
    """Silence an alert for a while."""
    return _change_state(alert, "snooze", {"seconds": round(minutes * 60), "user": user})


@changes(command, "resolve")
def resolve(alert: AlertId, user: User = None) -> Call:
    """Resolve an alert; it opens again later while its cause persists."""
    return _change_state(alert, "resolve", {"user": user})


@reads(command, "rules")
def list_rules() -> Call:
    """List the alert rules with limits, durations and cooldowns."""
    return Call("/alerts/rules", "alert rules", items="rules", columns=_RULE_COLUMNS)


@changes(command, "set-rule")
def set_rule(
    rule: Annotated[AlertRuleName, typer.Argument(help="Name of the rule.")],
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Watch it, or not.")
    ] = None,
    severity: Annotated[AlertSeverity | None, typer.Option(help="Severity.")] = None,
    limit: Annotated[float | None, typer.Option(help="Limit beyond which it alerts.")] = None,
    clear_limit: Annotated[
        float | None, typer.Option(help="Limit within which it is over.")
    ] = None,
    duration_s: Annotated[
        int | None, typer.Option(min=0, help="Seconds for which the cause must last.")
    ] = None,
    cooldown_s: Annotated[
        int | None, typer.Option(min=0, help="Seconds before it alerts again.")
    ] = None,
    reason: Reason = None,
    user: User = None,
) -> Call:
    """Change an alert rule; what no option names stays as it is."""
    body = {
        "enabled": enabled,
        "severity": severity,
        "limit": limit,
        "clear_limit": clear_limit,
        "duration_s": duration_s,
        "cooldown_s": cooldown_s,
        "reason": reason,
        "user": user,
    }
    return Call(f"/alerts/rules/{rule}", "alert rule", "PUT", body=body)


def _change_state(alert: str, step: str, body: Mapping[str, object]) -> Call:
    path = f"/alerts/{{}}/{step}"
    reference = (ALERT, alert)
    return Call(path, "alert", "POST", body=body, reference=reference, show=_print_changed)


def _print_changed(output: Output, alert: Mapping[str, Any]) -> None:
    output.console.print(_create_alerts_table(f"alert: {alert['state']}", [alert]))


def _create_alerts_table(title: str, alerts: Sequence[Mapping[str, Any]]) -> Table:
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
