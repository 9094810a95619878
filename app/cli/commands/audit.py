"""`my-symbols audit` and `replay`: the audit log, both hash chains, and decisions made again."""

import asyncio
from enum import StrEnum
from typing import Annotated, Final

import typer

from app.cli.calls import Call, IdKind, find_id, reads
from app.cli.choices import AuditAction
from app.cli.client import DEFAULT_URL, Client, CliResponse, quote_segment
from app.cli.commands.alerts import ALERT
from app.cli.commands.portfolio import RUN
from app.cli.commands.signals import SIGNAL
from app.cli.exit_codes import CommandError, ExitCode
from app.cli.lazy import load_program
from app.cli.output import AsJson, Limit, Since, Until, Url, report_errors

command = typer.Typer(
    add_completion=False, no_args_is_help=True, help="The audit log: list and verify; read-only."
)
replay = typer.Typer(add_completion=False)
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


class ReplayKind(StrEnum):
    """Kinds of decisions that can be replayed."""

    SCORING = "scoring"
    REBALANCE = "rebalance"
    REPLACEMENT = "replacement"
    SIGNAL = "signal"
    ALERT = "alert"


# Path of the decisions of a kind, and how the beginning of an id is completed.
_REPLAYS: Final[dict[ReplayKind, tuple[str, IdKind | None]]] = {
    ReplayKind.SCORING: ("/scoring/runs", None),
    ReplayKind.REBALANCE: ("/portfolio/rebalances", RUN),
    ReplayKind.REPLACEMENT: ("/portfolio/replacements", None),
    ReplayKind.SIGNAL: ("/signals", SIGNAL),
    ReplayKind.ALERT: ("/alerts", ALERT),
}


@replay.command()
def replay_decision(
    kind: Annotated[ReplayKind, typer.Argument(help="Kind of the decision.")],
    decision: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Id of the run, signal or alert, or the beginning of it; of a replacement the id"
            " of its proposal, or the number of its event in the history.",
        ),
    ],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Replay a decision from its stored inputs; another result exits with 1."""
    with report_errors(as_json) as output:
        response = asyncio.run(_replay(Client(url), kind, decision))
        document = response.document
        if document.get("is_identical") is False:
            detail = f"It differs in: {', '.join(document['differing'])}."
            raise CommandError(ExitCode.REFUSED, "replay_differs", detail, dict(document))
        if not output.print_if_json(response):
            output.console.print(f"{kind.value} {decision}: identical", markup=False)


async def _replay(client: Client, kind: ReplayKind, text: str) -> CliResponse:
    path, ids = _REPLAYS[kind]
    decision = text if ids is None else await find_id(client, ids, text)
    return await client.post(f"{path}/{quote_segment(decision)}/replay")
