"""Output of a command: one JSON document or CSV on stdout, or tables and sentences for people."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.table import Table
from rich.text import Text

from app.cli.client import CliResponse
from app.cli.exit_codes import CommandError

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]
AsCsv = Annotated[
    bool, typer.Option("--csv", help="Print all fields as CSV on stdout and nothing else there.")
]
Url = Annotated[
    str, typer.Option("--url", envvar="MYSYMBOLS_URL", help="Address of the running service.")
]
Symbol = Annotated[str, typer.Argument(help="Any spelling: BTCUSDT, XBTUSDTM, BTC/USDT:USDT.")]
Reason = Annotated[str | None, typer.Option(help="Recorded in the history.")]
Since = Annotated[
    str | None, typer.Option("--from", help="At or after, such as 2026-01-31T00:00:00Z.")
]
Until = Annotated[str | None, typer.Option("--to", help="Before, such as 2026-01-31T00:00:00Z.")]
User = Annotated[str | None, typer.Option(help="Name that is recorded as the actor.")]
IdempotencyKey = Annotated[
    str | None, typer.Option("--key", help="Idempotency-Key: the same key has one effect.")
]
Limit = Annotated[int, typer.Option(min=1, max=500, help="Number of entries, newest first.")]
MIN_ID_CHARS: Final = 8  # of a shortened id
_MAX_WORD_CHARS: Final = 24  # a longer word may be broken into lines
_FORMULA_MARKS: Final = ("=", "+", "-", "@", "\t", "\r")


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

    def print_csv(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Prints rows as CSV with a header; nested objects become columns such as `error.code`."""
        typer.echo(format_csv(rows), nl=False)

    def print_if_listed(self, rows: Sequence[Mapping[str, Any]], *, as_csv: bool) -> bool:
        """Prints rows as JSON or CSV where asked for; returns True if nothing is left to print."""
        if self.as_json:
            self.print_document({"items": list(rows)})
        elif as_csv:
            self.print_csv(rows)
        return self.as_json or as_csv

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


class FittedTable(Table):
    """Table that fits the terminal without cutting an id.

    Where it is too wide, ids shrink to a prefix that is unique in the table; where that is still
    too wide, each row becomes a block of lines.
    """

    def __init__(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
    ) -> None:
        super().__init__(title=title, title_justify="left", title_style="bold")
        self._columns_as_given = tuple(columns)
        self._cells = [[format_value(cell) for cell in row] for row in rows]
        for index, column in enumerate(columns):
            is_number, is_id = column.endswith(">"), column.endswith("#")
            self.add_column(
                column.rstrip(">#"),
                justify="right" if is_number else "left",
                no_wrap=is_number or is_id,
                overflow="fold",
                min_width=self._least_width(index),
            )
        for cells in self._cells:
            self.add_row(*(Text(cell) for cell in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.fits(options.max_width):
            yield from super().__rich_console__(console, options)
            return
        shorter = self._with_short_ids()
        if shorter.fits(options.max_width):
            yield from Table.__rich_console__(shorter, console, options)
            return
        yield self._as_blocks()

    def fits(self, width: int) -> bool:
        """Returns whether no id and no number would be cut at this width."""
        least = sum(self._least_width(index) for index in range(len(self._columns_as_given)))
        return least + 3 * len(self._columns_as_given) + 1 <= width

    def _least_width(self, index: int) -> int:
        column = self._columns_as_given[index]
        cells = [row[index] for row in self._cells]
        if column.endswith((">", "#")):
            return max(map(cell_len, (column[:-1], *cells)))
        words = [cell_len(word) for cell in (column, *cells) for word in cell.split()]
        return min(max(words, default=0), _MAX_WORD_CHARS)

    def _with_short_ids(self) -> "FittedTable":
        rows = [list(row) for row in self._cells]
        for index, column in enumerate(self._columns_as_given):
            if column.endswith("#"):
                prefixes = shorten_ids([row[index] for row in rows])
                for row, prefix in zip(rows, prefixes, strict=True):
                    row[index] = prefix
        return FittedTable(str(self.title), self._columns_as_given, rows)

    def _as_blocks(self) -> Text:
        names = [column.rstrip(">#") for column in self._columns_as_given]
        widest = max(map(cell_len, names), default=0)
        text = Text(f"{self.title}\n", style="bold", end="") if self.title else Text(end="")
        for row in self._cells:
            text.append("\n")
            for name, cell in zip(names, row, strict=True):
                text.append(f"{name:<{widest}}  {cell}\n", style="not bold")
        return text


def shorten_ids(ids: Sequence[str]) -> list[str]:
    """Returns the shortest prefixes, of one length, that tell the ids apart; 8 characters or more.

    A word before a colon, such as the kind of a job, is not counted.
    """
    distinct = set(ids)
    lengths = range(MIN_ID_CHARS, max(map(len, ids), default=MIN_ID_CHARS) + 1)
    for length in lengths:
        cut = {one: one[: len(one) - len(_tail(one)) + length] for one in distinct}
        if len(set(cut.values())) == len(distinct):
            return [cut[one] for one in ids]
    return list(ids)


def _tail(text: str) -> str:
    return text.rpartition(":")[2]


def create_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> FittedTable:
    """Returns a table; `>` ends the name of a right-aligned column, `#` that of a column of ids."""
    return FittedTable(title, columns, rows)


def create_fact_table(title: str, document: Mapping[str, Any]) -> Table:
    """Returns a table of the plain values of a document, one per line."""
    facts = [
        (name.replace("_", " "), value)
        for name, value in document.items()
        if not isinstance(value, list | dict)
    ]
    return create_table(title, ("", ""), facts)


def refuse_two_forms(as_json: bool, as_csv: bool) -> None:
    """Raises BadParameter where a command is asked for JSON and CSV."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other.")


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the plain values of a document; a nested object becomes names such as `error.code`.

    Lists stay as they are.
    """
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def print_sections(output: Output, title: str, document: Mapping[str, Any]) -> None:
    """Prints a whole document: its plain values as one table, each list of objects as its own."""
    facts: list[tuple[str, object]] = []
    tables: list[tuple[str, list[Mapping[str, Any]]]] = []
    for name, value in flatten(document).items():
        words = name.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables.append((words, value))
        else:
            facts.append((words, _line(value)))
    if facts:
        output.console.print(create_table(title, ("", ""), facts))
    for words, rows in tables:
        output.console.print(create_rows_table(words, rows))


def create_rows_table(
    title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None
) -> FittedTable:
    """Returns a table of objects; `columns` has the field of each column, else all are shown."""
    flat = [flatten(row) for row in rows]
    if columns is None:
        names = dict.fromkeys(name for row in flat for name in row)
        columns = {name.replace("_", " "): name for name in names}
    cells = [[_line(row.get(name)) for name in columns.values()] for row in flat]
    return create_table(title, tuple(columns), cells)


def format_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as CSV with a header; empty text without rows.

    Missing values are empty, lists are JSON. Text that a spreadsheet would run as a formula gets
    an apostrophe in front.
    """
    flat = [flatten(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    if not names:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_csv_cell(row.get(name)) for name in names] for row in flat)
    return text.getvalue()


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, default=_encode)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA_MARKS) and not _is_number(value):
        return f"'{value}"
    return format_value(value)


def _is_number(text: str) -> bool:
    try:
        Decimal(text)
    except InvalidOperation:
        return False
    return True


def _line(value: object) -> object:
    if isinstance(value, list):
        plain = all(not isinstance(one, list | dict) for one in value)
        return ", ".join(map(format_value, value)) if plain else json.dumps(value, default=_encode)
    return None if value == {} else value


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
