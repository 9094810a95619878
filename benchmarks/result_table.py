"""What a benchmark found, as rows of the one table that `make bench` ends with."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "MYBENCH_ROWS"  # names the file that rows are noted in


@dataclass(frozen=True)
class Row:
    """A figure beside that of its peer in the same run; `met` is None where there is no goal."""

    what: str
    figure: str
    peer: str = ""
    ratio: str = ""
    goal: str = ""
    met: bool | None = None


def note(row: Row) -> None:
    """Keeps a row for the table of all; a benchmark that runs alone has its own table only."""
    if name := os.environ.get(FILE):
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def noted(file: Path) -> list[Row]:
    """The rows in the order in which they were found."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [Row(**json.loads(line)) for line in lines]
