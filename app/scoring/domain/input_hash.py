"""Hashes of scoring inputs and boards: equal values give equal hashes on every machine."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.market.domain.identity_cache import cached_while_alive
from app.market.domain.panel import FIELDS, Panel, ScoringInputs
from app.scoring.domain.board import Board
from app.scoring.domain.historical_moments import HistoricMoments
from app.scoring.domain.market_factors import BookLevels, Settlements

_RUN_FIELDS: Final = frozenset({"run_id", "seq", "duration_ms"})


def input_hash(
    inputs: ScoringInputs,
    moments: Mapping[str, HistoricMoments] = MappingProxyType({}),
    levels: BookLevels | None = None,
    paid: Settlements | None = None,
) -> str:
    """SHA-256 (hex) over the canonical bytes of all data that scoring may read.

    `moments` are the moments of earlier boards used in place of ranks. `levels` and `paid` are the
    books and settlements of `inputs` as arrays, if computed already. Numbers are hashed as the
    floats that scoring uses, so 1.10 and 1.1 are the same price.
    """
    digest = hashlib.sha256()
    levels = BookLevels.of(inputs.books) if levels is None else levels
    paid = Settlements.of(inputs.funding) if paid is None else paid
    for part in _parts(inputs, levels, paid):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    if moments:
        digest.update(_text(moments))
    return digest.hexdigest()


@cached_while_alive  # a panel serves several runs until a bar closes
def panel_hash(panel: Panel) -> str:
    """SHA-256 (hex) over the symbols and every bar of a panel."""
    digest = hashlib.sha256(_text([panel.symbols, panel.interval.ms, panel.close.shape]))
    digest.update(_array(panel.opened_ms))
    for field in FIELDS:
        digest.update(_array(getattr(panel, field)))
    return digest.hexdigest()


def _parts(inputs: ScoringInputs, levels: BookLevels, paid: Settlements) -> Iterator[bytes]:
    yield _text([inputs.symbols, inputs.as_of_ms, dict(inputs.excluded), inputs.unread])
    yield _text([panel_hash(panel) for panel in (inputs.daily, inputs.hourly)])
    for floats in (inputs.bid, inputs.ask, inputs.multiplier, inputs.open_interest):
        yield _array(floats)
    yield _array(inputs.open_interest_ms)
    yield _text([book and (book.code, book.sequence, book.stamped_ms) for book in inputs.books])
    for floats in (levels.price, levels.lots, paid.rate):
        yield _array(floats)
    for integers in (levels.count, paid.count, paid.settled_ms, paid.length_ms):
        yield _array(integers)
    if inputs.flow is not None:
        yield from map(_array, inputs.flow.columns)
    for source in sorted(inputs.ages_s):
        yield _text([source, inputs.half_lives_s[source]])
        yield _array(inputs.ages_s[source])


def _array(values: NDArray[np.float64] | NDArray[np.int64]) -> bytes:
    """Little-endian bytes in row order, one pattern for every NaN and for both zeros."""
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<")) + 0  # -0 + 0 is 0
    if plain.dtype.kind == "f":
        np.copyto(plain, np.nan, where=np.isnan(plain))
    return plain.tobytes()


def _text(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    return text.encode()


def _plain(value: object) -> object:
    """JSON form of dates, mappings and dataclasses. Raises TypeError for other types."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        return _fields(value)
    raise TypeError(f"cannot hash a {type(value).__name__}")


def _fields(value: Any) -> dict[str, object]:
    return {field.name: getattr(value, field.name) for field in fields(value) if field.init}


def board_hash(board: Board) -> str:
    """SHA-256 (hex) of a board, to the last bit, without run id, sequence number and duration."""
    values = {name: value for name, value in _fields(board).items() if name not in _RUN_FIELDS}
    return hashlib.sha256(_text(values)).hexdigest()
