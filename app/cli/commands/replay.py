"""`my-symbols replay`: makes a stored decision again from its inputs and compares both."""

import asyncio
from enum import StrEnum
from typing import Annotated, Final

import typer

from app.cli.client import DEFAULT_URL, Client, quote_segment
from app.cli.exit_codes import CommandError, ExitCode
from app.cli.output import AsJson, Url, report_errors

command = typer.Typer()


class ReplayKind(StrEnum):
    """Kinds of decisions that can be replayed."""

    SCORING = "scoring"
    REBALANCE = "rebalance"
    REPLACEMENT = "replacement"
    SIGNAL = "signal"
    ALERT = "alert"


_PATHS: Final = {
    ReplayKind.SCORING: "/scoring/runs",
    ReplayKind.REBALANCE: "/portfolio/rebalances",
    ReplayKind.REPLACEMENT: "/portfolio/replacements",
    ReplayKind.SIGNAL: "/signals",
    ReplayKind.ALERT: "/alerts",
}


@command.command()
def replay(
    kind: Annotated[ReplayKind, typer.Argument(help="Kind of the decision.")],
    decision: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Id of the run, signal, alert or proposal; of an executed replacement the number"
            " of its event in the history.",
        ),
    ],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Replay a decision from its stored inputs; another result exits with 1."""
    with report_errors(as_json) as output:
        path = f"{_PATHS[kind]}/{quote_segment(decision)}/replay"
        response = asyncio.run(Client(url).post(path))
        document = response.document
        if not output.print_if_json(response) and document["is_identical"]:
            output.console.print(f"{kind.value} {decision}: identical", markup=False)
        if not document["is_identical"]:
            differing = ", ".join(document["differing"])
            raise CommandError(
                ExitCode.REFUSED, "replay_differs", f"It differs in: {differing}.", dict(document)
            )
