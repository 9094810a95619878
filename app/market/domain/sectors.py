"""Classification of base coins: asset class, sector and market capitalisation."""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from types import MappingProxyType
from typing import Final

UNCLASSIFIED: Final = "unclassified"  # a sector of its own in every limit
NO_SECTOR: Final = ""  # of an empty seat; equal to no sector of a coin
COLUMNS: Final = ("base", "asset_class", "sector", "cap_category")
_BASE: Final = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)
_SECTOR: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)


class AssetClass(StrEnum):
    """Kind of asset; only coins are scored, because the others move differently."""

    COIN = "coin"
    STABLE = "stable"
    FIAT = "fiat"
    WRAPPED = "wrapped"
    INDEX = "index"
    COMMODITY = "commodity"


class CapCategory(StrEnum):
    """Market capitalisation in USD: > 10 G, > 1 G, > 100 M, the rest."""

    LARGE = "large"
    MID = "mid"
    SMALL = "small"
    MICRO = "micro"
    UNCLASSIFIED = UNCLASSIFIED


@dataclass(frozen=True, slots=True)
class Classification:
    asset_class: AssetClass
    sector: str
    cap_category: CapCategory


# An unclassified base counts as a coin: only known other kinds are excluded.
_UNKNOWN: Final = Classification(AssetClass.COIN, UNCLASSIFIED, CapCategory.UNCLASSIFIED)


@dataclass(frozen=True, slots=True)
class SectorTable:
    """Base coin -> classification; a missing base is an unclassified coin."""

    rows: Mapping[str, Classification]

    def classify(self, base: str) -> Classification:
        return self.rows.get(base, _UNKNOWN)

    def with_changes(self, changes: Mapping[str, Classification | None]) -> "SectorTable":
        """Returns the table with other classifications; None removes a base."""
        rows = {**self.rows, **changes}
        return SectorTable(
            MappingProxyType({base: one for base, one in rows.items() if one is not None})
        )


@dataclass(frozen=True, slots=True)
class SectorChange:
    """Changed classification of a base coin; `after` is None for a return to the default."""

    base: str
    before: Classification
    after: Classification | None


def check_base(base: str) -> str:
    """Returns the base. Raises ValueError unless it is 1 to 64 ASCII letters and digits."""
    if not _BASE.fullmatch(base):
        raise ValueError("a base coin has 1 to 64 letters and digits, such as BTC")
    return base


def check_sector(sector: str) -> str:
    """Returns the sector. Raises ValueError unless it is a word such as `layer1`."""
    if not _SECTOR.fullmatch(sector):
        raise ValueError(
            "a sector has 1 to 64 lower-case letters, digits and underscores and begins with a"
            " letter, such as layer1"
        )
    return sector


def parse_sectors(text: str) -> SectorTable:
    """Parses the table: CSV with a header; # starts a comment line.

    Raises ValueError naming the line for a wrong header, an unknown word or a repeated base.
    """
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines or tuple(lines[0][1].split(",")) != COLUMNS:
        raise ValueError("the sector table must begin with " + ",".join(COLUMNS))
    rows: dict[str, Classification] = {}
    for number, line in lines[1:]:
        cells = next(csv.reader(StringIO(line)))
        if len(cells) != len(COLUMNS) or not all(cells):
            raise ValueError(f"line {number} of the sector table needs {len(COLUMNS)} cells")
        base, asset_class, sector, cap = cells
        if base in rows:
            raise ValueError(f"line {number} of the sector table gives its base a second time")
        try:
            rows[check_base(base)] = Classification(
                AssetClass(asset_class), check_sector(sector), CapCategory(cap)
            )
        except ValueError as error:
            raise ValueError(f"line {number} of the sector table: {error}") from error
    return SectorTable(MappingProxyType(rows))


def render_sectors(rows: Iterable[tuple[str, Classification]]) -> str:
    """Returns the rows in the form that `parse_sectors` reads."""
    lines = [",".join(COLUMNS)]
    lines += [
        f"{base},{one.asset_class.value},{one.sector},{one.cap_category.value}"
        for base, one in rows
    ]
    return "\n".join(lines) + "\n"
