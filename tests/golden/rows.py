"""Canonical rows of decisions: numbers and symbols only, so that a rename never changes them."""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Final

HOUR_MS: Final = 3_600_000
_COLUMNS: Final = ("table", "number", "name")


class UnknownNameError(LookupError):
    """A decision uses a name that has no number."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line; an empty text is "not applicable", numbers of names are those of `Names`."""

    at_ms: str  # since the beginning of the recording
    kind: str
    symbol: str = ""
    rank: str = ""
    z: str = ""
    score: str = ""
    weight_u: str = ""
    lots: str = ""
    verdict: str = ""
    rule: str = ""
    reason: str = ""


@dataclass(slots=True)
class Names:
    """Numbers of the names of kinds, verdicts, rules and reasons.

    A number never changes: after a rename its line in the file gets the new name. Numbers are
    only added where `is_open`, which is while the fixture is recorded.
    """

    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    is_open: bool = False

    @classmethod
    def read(cls, path: Path, *, is_open: bool = False) -> "Names":
        if is_open and not path.exists():
            return cls(is_open=True)
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            return cls({(one["table"], one["name"]): int(one["number"]) for one in lines}, is_open)

    def write(self, path: Path) -> None:
        """One line a name, in the order of tables and numbers."""
        ordered = sorted(self.numbers.items(), key=lambda item: (item[0][0], item[1]))
        lines = ((table, number, name) for (table, name), number in ordered)
        path.write_text(_csv(_COLUMNS, lines), encoding="utf-8")

    def number(self, table: str, name: str | None) -> str:
        """Raises UnknownNameError for a name without a number."""
        if name is None:
            return ""
        found = self.numbers.get((table, name))
        if found is None and self.is_open:
            taken = [number for (one, _), number in self.numbers.items() if one == table]
            found = self.numbers[table, name] = max(taken, default=0) + 1
        if found is None:
            raise UnknownNameError(
                f"{name!r} has no number in table {table!r} of names.csv: after a rename give its"
                " line there the new name; a new decision needs `make golden`"
            )
        return str(found)


def decimal(value: float | None) -> str:
    """Six decimals, and one zero; empty where the value is missing."""
    if value is None:
        return ""
    text = f"{value:.6f}"
    return "0.000000" if text == "-0.000000" else text


def as_text(rows: Iterable[Row]) -> str:
    """The rows as CSV, with a heading."""
    return _csv([one.name for one in fields(Row)], map(astuple, rows))


def from_text(text: str) -> list[Row]:
    lines = iter(csv.reader(io.StringIO(text)))
    next(lines)
    return [Row(*line) for line in lines]


def hashes_of(rows: Sequence[Row]) -> dict[str, str]:
    """SHA-256 of all rows, and of each virtual hour."""
    hours: dict[int, list[Row]] = {}
    for row in rows:
        hours.setdefault(int(row.at_ms) // HOUR_MS, []).append(row)
    return {"all": _digest(rows)} | {f"hour {one}": _digest(hours[one]) for one in sorted(hours)}


def first_difference(expected: Sequence[Row], found: Sequence[Row]) -> str | None:
    """The first row that is another one, in words with the row before it; None where none is."""
    pairs = enumerate(zip(expected, found, strict=False), 1)
    at = next((number for number, (old, new) in pairs if old != new), None)
    if at is None and len(expected) == len(found):
        return None
    at = at or min(len(expected), len(found)) + 1

    def line(rows: Sequence[Row], number: int) -> str:
        return ",".join(astuple(rows[number - 1])) if 0 < number <= len(rows) else "(no row)"

    differing = [
        one.name
        for one in fields(Row)
        if at <= min(len(expected), len(found))
        and getattr(expected[at - 1], one.name) != getattr(found[at - 1], one.name)
    ]
    heading = ",".join(one.name for one in fields(Row))
    return (
        f"row {at} of {len(expected)} differs in {', '.join(differing) or 'its presence'}:\n"
        f"  columns   {heading}\n"
        f"  before it {line(expected, at - 1)}\n"
        f"  expected  {line(expected, at)}\n"
        f"  found     {line(found, at)}"
    )


def _digest(rows: Iterable[Row]) -> str:
    return hashlib.sha256("\n".join(",".join(astuple(row)) for row in rows).encode()).hexdigest()


def _csv(heading: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(lines)
    return text.getvalue()
