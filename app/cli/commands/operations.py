"""`my-symbols doctor`, `status`, `health`, `dashboard`, `changes` and more: the service."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from app.cli.calls import Call, IdKind, changes, reads
from app.cli.client import DEFAULT_URL, Client
from app.cli.commands.jobs import run_job
from app.cli.lazy import load_program
from app.cli.output import (
    AsJson,
    Limit,
    Output,
    Url,
    create_fact_table,
    create_rows_table,
    print_sections,
    report_errors,
)

doctor = typer.Typer(add_completion=False)
status = typer.Typer(add_completion=False)
health = typer.Typer(add_completion=False)
whoami = typer.Typer(add_completion=False)
dashboard = typer.Typer(add_completion=False)
recent_changes = typer.Typer(add_completion=False)
sample_data = typer.Typer(add_completion=False)
sessions = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Sessions of people: list them, end one."
)
SESSION: Final = IdKind("session", "id", ("/sessions",), is_paged=False)
_COMPONENT_COLUMNS: Final = {
    "component": "name",
    "state": "state",
    "since": "since",
    "cause": "cause",
    "detail": "detail",
    "next step": "next_step",
}
_EVENT_COLUMNS: Final = {
    "sequence>": "sequence",
    "at": "timestamp",
    "topic": "topic",
    "type": "data.type",
    "symbol": "data.symbol",
    "reason": "data.reason",
    "reason of the change": "data.details.reason",
    "alert": "data.message",
}
_SESSION_COLUMNS: Final = {
    "actor": "actor",
    "kind": "kind",
    "created": "created_at",
    "last used": "last_used_at",
    "expires": "expires_at",
    "session#": "id",
}


@doctor.command()
def check_set_up(context: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Check configuration, database, schema, exchange, clock and the running service.

    With --url only the service at that address is examined, from here: connection, certificate,
    key, version, clock, market data and components.
    """
    source = context.get_parameter_source("url")
    is_elsewhere = source is not None and source.name == "COMMANDLINE"
    load_program("doctor")(as_json=as_json, url=url, is_elsewhere=is_elsewhere)


@reads(status)
def show_status() -> Call:
    """Show feed, scoring, portfolio, signals, tasks and processes of the service."""
    return Call("/status", "status")


@reads(health)
def show_health() -> Call:
    """Show the mode of the service and the state of each component."""
    return Call("/health", "health", items="components", show=_print_health)


@reads(dashboard)
def show_dashboard() -> Call:
    """Show health, positions, recent trades and recent verdicts on signals in one page."""
    return Call("/dashboard", "dashboard")


@reads(recent_changes)
def list_changes(
    since: Annotated[
        str, typer.Argument(help="Number of the last event that was seen, or a time with its zone.")
    ],
    limit: Limit = 100,
) -> Call:
    """List what changed after an absence: members, weights, decisions, alerts, settings."""
    query = {"since": since, "limit": limit}
    return Call("/changes", "changes", query=query, items="items", show=_print_changes)


@reads(whoami)
def show_caller() -> Call:
    """Show how the service knows you: key or open mode, role and scopes."""
    return Call("/users/me", "caller")


@reads(sessions, "list")
def list_sessions() -> Call:
    """List the sessions of people who are logged in."""
    return Call(
        "/sessions",
        "sessions",
        items="items",
        columns=_SESSION_COLUMNS,
        empty="no one is logged in",
    )


@changes(sessions, "end")
def end_session(
    session: Annotated[str, typer.Argument(help="Id of a session, or the beginning of it.")],
) -> Call:
    """End a session at once."""
    return Call("/sessions/{}", "session", "DELETE", reference=(SESSION, session), empty="ended")


@sample_data.command()
def load_sample_data(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """Fill the service with data of the local exchange; refused at a real one."""
    with report_errors(as_json) as output:
        response = run_job(output, Client(url), "loading", "/initialize-sample-data")
        if not output.print_if_json(response):
            output.console.print(create_fact_table("sample data", response.document["result"]))


def _print_changes(output: Output, page: Mapping[str, Any]) -> None:
    if page["missing"] is not None:
        output.notes.print("Older events are no longer stored; `history` has all changes.")
    if not page["items"]:
        output.console.print(f"nothing has changed since event {page['since']}")
        return
    output.console.print(create_rows_table("changes", page["items"], _EVENT_COLUMNS))
    if page["portfolio"] is not None:
        print_sections(output, "net change of the portfolio", page["portfolio"])
    output.console.print(f"`watch --resume-from {page['sequence']}` goes on from here")


def _print_health(output: Output, found: Mapping[str, Any]) -> None:
    components = found["components"]
    title = f"{found['status']}, mode {found['mode']}, data {found['data_status']}"
    output.console.print(create_rows_table(title, components, _COMPONENT_COLUMNS))
    others = {name: value for name, value in found.items() if name != "components"}
    print_sections(output, "health", others)
