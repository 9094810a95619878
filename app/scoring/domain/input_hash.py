"""The fingerprint of scoring inputs: equal inputs, equal hash, on every machine."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.market.domain.models import Book, Level
from app.market.domain.panel import FIELDS, Panel, ScoringInputs
from app.scoring.domain.board import Board
from app.scoring.domain.historical_moments import HistoricMoments

_OF_THE_RUN: Final = frozenset({"run_id", "seq", "duration_ms"})


def input_hash(
    inputs: ScoringInputs, moments: Mapping[str, HistoricMoments] = MappingProxyType({})
) -> str:
    """SHA-256 (hex) over the canonical bytes of everything that a scoring may look at.

    `moments` are those of earlier boards that stood for ranks.
    Numbers count as the floats that scoring sees, so 1.10 and 1.1 are the same price."""
    digest = hashlib.sha256()
    for part in _parts(inputs):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    if moments:
        digest.update(_text(moments))
    return digest.hexdigest()


def panel_hash(panel: Panel) -> str:
    """SHA-256 (hex) over the symbols and every bar of a panel."""
    digest = hashlib.sha256(_text(panel.symbols))
    for part in _panel(panel):
        digest.update(part)
    return digest.hexdigest()


def _parts(inputs: ScoringInputs) -> Iterator[bytes]:
    yield _text([inputs.symbols, inputs.as_of_ms, dict(inputs.excluded), inputs.unread])
    for panel in (inputs.daily, inputs.hourly):
        yield from _panel(panel)
    for floats in (inputs.bid, inputs.ask, inputs.multiplier, inputs.open_interest):
        yield _array(floats)
    yield _array(inputs.open_interest_ms)
    yield _text([_book(book) for book in inputs.books])
    yield _text(
        [
            [(one.settled_ms, float(one.rate), one.interval_ms) for one in settled]
            for settled in inputs.funding
        ]
    )
    for source in sorted(inputs.ages_s):
        yield _text([source, inputs.half_lives_s[source]])
        yield _array(inputs.ages_s[source])


def _panel(panel: Panel) -> Iterator[bytes]:
    yield _text([panel.interval.ms, panel.close.shape])
    yield _array(panel.opened_ms)
    for field in FIELDS:
        yield _array(getattr(panel, field))


def _book(book: Book | None) -> object:
    return book and (book.code, book.sequence, book.stamped_ms, *map(_side, (book.bids, book.asks)))


def _side(levels: tuple[Level, ...]) -> list[tuple[float, int]]:
    return [(float(level.price), level.lots) for level in levels]


def _array(values: NDArray[np.float64] | NDArray[np.int64]) -> bytes:
    """Little-endian bytes in row order, one pattern for every NaN and for both zeros."""
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return (np.where(np.isnan(plain), np.nan, plain) + 0).tobytes()


def _text(value: object) -> bytes:
    made = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return made.encode()


def _plain(value: object) -> object:
    """The JSON form of what JSON does not know. Raises TypeError for anything else."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        return _fields(value)
    raise TypeError(f"a fingerprint cannot hold a {type(value).__name__}")


def _fields(value: Any) -> dict[str, object]:
    return {one.name: getattr(value, one.name) for one in fields(value) if one.init}


def board_hash(board: Board) -> str:
    """SHA-256 (hex) over everything that a board says; not which run it was and how long it took.

    Scores count to the last bit."""
    said = {name: value for name, value in _fields(board).items() if name not in _OF_THE_RUN}
    return hashlib.sha256(_text(said)).hexdigest()
