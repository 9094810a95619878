"""What kind of thing a base coin is, which sector it belongs to and how large it is."""

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
    """Only coins are scored; the others do not move like coins or are not what they trade."""

    COIN = "coin"
    STABLE = "stable"
    FIAT = "fiat"
    WRAPPED = "wrapped"
    INDEX = "index"
    COMMODITY = "commodity"


class CapCategory(StrEnum):
    """Order of magnitude of the market capitalisation: > 10 G, > 1 G, > 100 M, the rest (USD)."""

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


# A coin that nobody has classified is still a coin: only known others are kept out.
_UNKNOWN: Final = Classification(AssetClass.COIN, UNCLASSIFIED, CapCategory.UNCLASSIFIED)


@dataclass(frozen=True, slots=True)
class SectorTable:
    """Base coin -> classification; what is not in it is an unclassified coin."""

    rows: Mapping[str, Classification]

    def of(self, base: str) -> Classification:
        return self.rows.get(base, _UNKNOWN)


def parse_sectors(text: str) -> SectorTable:
    """Read the table: CSV with a header, # starts a comment line.

    Raises ValueError naming the line for a wrong header, an unknown word or a base given twice.
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
