"""`my-symbols audit`: lists the audit log, and verifies both chains without the service."""

from typing import Annotated, Final

import typer

from app.cli.calls import Call, reads
from app.cli.choices import AuditAction
from app.cli.lazy import load_program
from app.cli.output import AsJson, Limit, Since, Until

command = typer.Typer(
    add_completion=False, no_args_is_help=True, help="The audit log: list and verify; read-only."
)
Database = Annotated[
    str | None,
    typer.Option(
        "--database", help="Database URL; that of the settings by default.", metavar="URL"
    ),
]
_COLUMNS: Final = {
    "time": "occurred_at",
    "actor": "actor",
    "action": "action",
    "subject": "subject",
    "address": "address",
    "code": "code",
    "count>": "count",
    "chain": "chain",
    "number>": "sequence",
}


@reads(command, "list")
def list_entries(
    actor: Annotated[str | None, typer.Option(help="Exact actor, such as key:engine.")] = None,
    action: Annotated[AuditAction | None, typer.Option(help="One action.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
) -> Call:
    """List changes, log-ins and refusals, newest first."""
    query = {"limit": limit, "actor": actor, "action": action, "from": since, "to": until}
    return Call(
        "/audit", "audit log", query=query, items="items", columns=_COLUMNS, empty="no entry"
    )


@command.command()
def verify(database: Database = None, as_json: AsJson = False) -> None:
    """Check both hash chains, their ends, and that the stored state follows from the history."""
    load_program("audit verify")(database=database, as_json=as_json)
