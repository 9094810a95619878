"""`my-symbols audit`: lists the audit log, and verifies both chains without the service."""

import asyncio
from typing import Annotated, Any

import typer

from app.cli.client import DEFAULT_URL, Client
from app.cli.lazy import load_program
from app.cli.output import AsJson, Limit, Url, create_table, drop_missing, report_errors

command = typer.Typer(no_args_is_help=True, help="The audit log: list and verify; read-only.")
Database = Annotated[
    str | None,
    typer.Option(
        "--database", help="Database URL; that of the settings by default.", metavar="URL"
    ),
]
_COLUMNS = (
    "time", "actor", "action", "subject", "address", "code", "count>", "chain", "number>",
)  # fmt: skip


@command.command(name="list")
def list_entries(
    actor: Annotated[str | None, typer.Option(help="Exact actor, such as key:engine.")] = None,
    action: Annotated[str | None, typer.Option(help="One action, such as refused.")] = None,
    since: Annotated[
        str | None, typer.Option(help="At or after, such as 2026-01-31T00:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """List changes, log-ins and refusals, newest first."""
    with report_errors(as_json) as output:
        query = drop_missing({"actor": actor, "action": action, "from": since, "to": until})
        response = asyncio.run(Client(url).get("/audit", limit=limit, **query))
        if output.print_if_json(response):
            return
        entries = response.document["items"]
        output.console.print(create_table("audit log", _COLUMNS, [_row(one) for one in entries]))
        if response.document["next_cursor"] is not None:
            output.notes.print(f"there are more than {limit}")


@command.command()
def verify(database: Database = None, as_json: AsJson = False) -> None:
    """Check both hash chains, their ends, and that the stored state follows from the history."""
    load_program("audit verify")(database=database, as_json=as_json)


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    names = ("occurred_at", "actor", "action", "subject", "address", "code", "count", "chain")
    return (*(entry[name] for name in names), entry["sequence"])
