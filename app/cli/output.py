"""What a command prints: machine output on stdout only, everything for people beside it."""

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

from app.cli.client import DEFAULT_URL, CliResponse
from app.cli.exit_codes import CommandError

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]
Url = Annotated[str, typer.Option("--url", envvar="MYSYMBOLS_URL", help="Where the service runs.")]
HERE = DEFAULT_URL


def _console(*, stderr: bool) -> Console:
    # A pipe has no width: tables must not be folded to 80 columns there.
    width = None if "COLUMNS" in os.environ else 160
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=width)


@dataclass(frozen=True, slots=True)
class Output:
    """One command's output: `as_json` decides what goes to stdout."""

    as_json: bool
    people: Console = field(default_factory=lambda: _console(stderr=False))
    notes: Console = field(default_factory=lambda: _console(stderr=True))

    def answer(self, answer: CliResponse) -> bool:
        """Prints the service's own text if machines read; True when that was all."""
        if self.as_json:
            self.machine(answer.text)
        return self.as_json

    def machine(self, document: str | Mapping[str, Any]) -> None:
        text = document if isinstance(document, str) else json.dumps(document, default=_exact)
        typer.echo(text)  # flushes: a pipe's reader sees it at once

    def error(self, error: CommandError) -> None:
        if self.as_json:
            self.machine(dict(error.problem))
        self.notes.print(f"[bold red]{error.code}[/]: ", end="")
        self.notes.print(error.detail, markup=False)

    def progress(self) -> Progress:
        """A progress bar on stderr; silent where nobody looks."""
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
def reporting(as_json: bool) -> Iterator[Output]:
    """Runs a command's body; a CommandError becomes its message and exit code."""
    output = Output(as_json)
    try:
        yield output
    except CommandError as error:
        output.error(error)
        raise typer.Exit(int(error.exit_code)) from None


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table for people; a column whose name ends in `>` is set flush right."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left")
    for row in rows:
        made.add_row(*(shown(cell) for cell in row))
    return made


def shown(value: object) -> str:
    """A value for people; what is missing is a dash, never a zero."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def number(value: object, digits: int = 3) -> str:
    """A number with a fixed count of digits; a dash where there is none."""
    if isinstance(value, int | float | Decimal):
        return f"{value:.{digits}f}"
    return "-"


def _exact(value: object) -> float | str:
    return float(value) if isinstance(value, Decimal) else str(value)
