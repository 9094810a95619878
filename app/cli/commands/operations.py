"""Commands about the running service: `doctor`, `status`, `health`, `dashboard`, `changes` ..."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from app.cli.calls import Call, IdKind, changes, reads
from app.cli.client import DEFAULT_URL, Client
from app.cli.commands.jobs import run_job
from app.cli.lazy import load_program
from app.cli.output import (
    AsJson,
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
dashboard = typer.Typer(add_completion=False)
changes_since = typer.Typer(add_completion=False)
whoami = typer.Typer(add_completion=False)
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
_CHANGE_COLUMNS: Final = {
    "sequence": "sequence",
    "time": "timestamp",
    "topic": "topic",
    "type": "data.type",
    "symbol": "data.symbol",
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
    """Show health, members, recent trades and recent verdicts; --watch repeats it."""
    return Call("/dashboard", "dashboard")


@reads(changes_since)
def list_changes(
    since: Annotated[str, typer.Argument(help="Sequence of an event, or an ISO time with zone.")],
    limit: Annotated[int, typer.Option(min=1, max=500, help="Events of the answer.")] = 100,
) -> Call:
    """List decisions, alerts and settings that changed after an absence, oldest first."""
    return Call(
        "/changes",
        "changes",
        query={"since": since, "limit": limit},
        items="items",
        columns=_CHANGE_COLUMNS,
    )


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


def _print_health(output: Output, found: Mapping[str, Any]) -> None:
    components = found["components"]
    title = f"{found['status']}, mode {found['mode']}, data {found['data_status']}"
    output.console.print(create_rows_table(title, components, _COMPONENT_COLUMNS))
    others = {name: value for name, value in found.items() if name != "components"}
    print_sections(output, "health", others)
