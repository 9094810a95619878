"""What a scoring run looked at, packed for storage: enough to recompute it from stored candles.

Tickers, books, funding, ages and multipliers are kept as they were used, and of open interest the
two ends of its change. Candles have a table of their own; of them only the windows are kept, which
bars of them were there, and a checksum per symbol: what was revised or came late is told by it.
"""

import json
import math
import zlib
from typing import Any, Final

import numpy as np

from app.market.domain.models import Book, Floats, Level
from app.market.domain.panel import FIELDS, Panel, ScoringInputs
from app.scoring.domain.market_factors import OPEN_INTEREST_MS, snapshot

FORMAT: Final = 2


def pack(inputs: ScoringInputs) -> bytes:
    """Compressed JSON; missing numbers are null, prices and rates decimal text."""
    document = {
        "format": FORMAT,
        "symbols": inputs.symbols,
        "as_of_ms": inputs.as_of_ms,
        "excluded": dict(inputs.excluded),
        "unread": inputs.unread,
        "daily": _window(inputs.daily),
        "hourly": _window(inputs.hourly),
        "bid": _numbers(inputs.bid),
        "ask": _numbers(inputs.ask),
        "multiplier": _numbers(inputs.multiplier),
        "books": [book and _book(book) for book in inputs.books],
        "funding": [
            [[one.settled_ms, str(one.rate), one.interval_ms] for one in settled]
            for settled in inputs.funding
        ],
        "open_interest": [
            _numbers(snapshot(inputs, inputs.as_of_ms - before)) for before in (0, OPEN_INTEREST_MS)
        ],
        "ages_s": {source: _numbers(ages) for source, ages in inputs.ages_s.items()},
        "half_lives_s": dict(inputs.half_lives_s),
    }
    return zlib.compress(json.dumps(document, separators=(",", ":"), allow_nan=False).encode())


def unpack(packed: bytes) -> dict[str, Any]:
    """The document of `pack`."""
    document: dict[str, Any] = json.loads(zlib.decompress(packed))
    return document


def _window(panel: Panel) -> dict[str, Any]:
    first = int(panel.opened_ms[0]) if len(panel.opened_ms) else 0
    there = np.isfinite(panel.close)
    return {
        "interval_ms": panel.interval.ms,
        "first_ms": first,
        "bars": len(panel.opened_ms),
        "there": [None if own.all() else np.packbits(own).tobytes().hex() for own in there.T],
        "sums": [checksum(panel, column) for column in range(len(panel.symbols))],
    }


def checksum(panel: Panel, column: int) -> int:
    """CRC-32 of every bar of one symbol; of every NaN the same."""
    bars = np.stack([getattr(panel, name)[:, column] for name in FIELDS])
    return zlib.crc32(np.where(np.isnan(bars), np.nan, bars).astype("<f8").tobytes())


def _book(book: Book) -> dict[str, Any]:
    return {
        "code": book.code,
        "sequence": book.sequence,
        "stamped_ms": book.stamped_ms,
        "bids": _side(book.bids),
        "asks": _side(book.asks),
    }


def _side(levels: tuple[Level, ...]) -> list[tuple[str, int]]:
    return [(str(level.price), level.lots) for level in levels]


def _numbers(values: Floats) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
