"""Rows of the result table that `make bench` prints at the end."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "MYBENCH_ROWS"  # names the file that rows are noted in


@dataclass(frozen=True)
class Row:
    """A figure beside that of its peer in the same run; `met` is None without a goal."""

    what: str
    figure: str
    peer: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None


def note(row: Row) -> None:
    """Adds a row to the table of all benchmarks; does nothing in a benchmark that runs alone."""
    if name := os.environ.get(FILE):
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def noted(file: Path) -> list[Row]:
    """Rows in the order in which they were noted."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [Row(**json.loads(line)) for line in lines]
