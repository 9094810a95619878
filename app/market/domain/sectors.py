"""Classification of base coins: asset class, sector and market capitalisation."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from types import MappingProxyType
from typing import Final

UNCLASSIFIED: Final = "unclassified"
_COLUMNS: Final = ("base", "asset_class", "sector", "cap_category")


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


def parse_sectors(text: str) -> SectorTable:
    """Parses the table: CSV with a header; # starts a comment line.

    Raises ValueError naming the line for a wrong header, an unknown word or a repeated base.
    """
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines or tuple(lines[0][1].split(",")) != _COLUMNS:
        raise ValueError("the sector table must begin with " + ",".join(_COLUMNS))
    rows: dict[str, Classification] = {}
    for number, line in lines[1:]:
        cells = next(csv.reader(StringIO(line)))
        if len(cells) != len(_COLUMNS) or not all(cells):
            raise ValueError(f"line {number} of the sector table needs {len(_COLUMNS)} cells")
        base, asset_class, sector, cap = cells
        if base in rows:
            raise ValueError(f"line {number} of the sector table gives its base a second time")
        try:
            rows[base] = Classification(AssetClass(asset_class), sector, CapCategory(cap))
        except ValueError as error:
            raise ValueError(f"line {number} of the sector table: {error}") from error
    return SectorTable(MappingProxyType(rows))
