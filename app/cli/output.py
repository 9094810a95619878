"""Output of a command: one JSON document on stdout, or tables and sentences for people."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.table import Table

from app.cli.client import CliResponse
from app.cli.exit_codes import CommandError

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]
Url = Annotated[
    str, typer.Option("--url", envvar="MYSYMBOLS_URL", help="Address of the running service.")
]
Symbol = Annotated[str, typer.Argument(help="Any spelling: BTCUSDT, XBTUSDTM, BTC/USDT:USDT.")]
Reason = Annotated[str | None, typer.Option(help="Recorded in the history.")]
IdempotencyKey = Annotated[
    str | None, typer.Option("--key", help="Idempotency-Key: the same key has one effect.")
]
Limit = Annotated[int, typer.Option(min=1, max=500, help="Number of entries, newest first.")]


def _create_console(*, stderr: bool) -> Console:
    # A pipe has no width; tables must not fold to 80 columns there.
    width = None if "COLUMNS" in os.environ else 160
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=width)


@dataclass(frozen=True, slots=True)
class Output:
    """Console output of one command; `as_json` selects machine output."""

    as_json: bool
    console: Console = field(default_factory=lambda: _create_console(stderr=False))
    notes: Console = field(default_factory=lambda: _create_console(stderr=True))

    def print_if_json(self, response: CliResponse) -> bool:
        """Prints the response text in machine mode; returns True if nothing is left to print."""
        if self.as_json:
            self.print_document(response.text)
        return self.as_json

    def print_document(self, document: str | Mapping[str, Any]) -> None:
        """Prints one JSON document; decimals become JSON numbers."""
        text = document if isinstance(document, str) else json.dumps(document, default=_encode)
        typer.echo(text)  # flushes, so that a reader of a pipe gets it at once

    def print_error(self, error: CommandError) -> None:
        if self.as_json:
            self.print_document(dict(error.problem))
        self.notes.print(f"[bold red]{error.code}[/]: ", end="")
        self.notes.print(error.detail, markup=False)

    def create_progress(self) -> Progress:
        """Returns a progress bar on stderr that is silent without a terminal."""
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
            console=self.notes,
            transient=False,
            disable=not self.notes.is_terminal,
        )


@contextmanager
def report_errors(as_json: bool) -> Iterator[Output]:
    """Runs the body of a command; prints a CommandError and exits with its code."""
    output = Output(as_json)
    try:
        yield output
    except CommandError as error:
        output.print_error(error)
        raise typer.Exit(int(error.exit_code)) from None


def create_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Returns a table; a column whose name ends in `>` is aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left")
    for row in rows:
        table.add_row(*(format_value(cell) for cell in row))
    return table


def create_fact_table(title: str, document: Mapping[str, Any]) -> Table:
    """Returns a table of the plain values of a document, one per line."""
    facts = [
        (name.replace("_", " "), value)
        for name, value in document.items()
        if not isinstance(value, list | dict)
    ]
    return create_table(title, ("", ""), facts)


def format_value(value: object) -> str:
    """Formats a value for people; a missing value is a dash, never a zero."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def format_number(value: object, digits: int = 3) -> str:
    """Formats a number with fixed digits; a dash for a missing one."""
    if isinstance(value, int | float | Decimal):
        return f"{value:.{digits}f}"
    return "-"


def drop_missing(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options without None."""
    return {name: value for name, value in options.items() if value is not None}


def _encode(value: object) -> float | str:
    return float(value) if isinstance(value, Decimal) else str(value)
