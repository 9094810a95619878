"""The inputs of a run again, from what it kept and from the candles that are stored."""

from collections.abc import Mapping
from decimal import Decimal
from itertools import islice, product
from typing import Any, Final

import numpy as np

from app.market.domain.models import Book, CandleSeries, Floats, Funding, Interval, Level
from app.market.domain.panel import FIELDS, Panel, ScoringInputs, Source
from app.market.storage.candle_revisions import Revision
from app.scoring.domain.market_factors import OPEN_INTEREST_MS
from app.scoring.services.run_inputs import checksum

Candles = dict[str, dict[str, CandleSeries]]  # by window and symbol, as they stand
Former = dict[str, dict[str, tuple[Revision, ...]]]  # what was said of them before
_MOST: Final = 4_096  # combinations of revisions that are tried for one symbol


def rebuilt(document: Mapping[str, Any], candles: Candles, former: Former) -> ScoringInputs:
    """What `run_inputs.pack` was given.

    Bars that came later are left out, and of revised ones the word is taken that was said then:
    the one that the checksum fits. Where none does the bars are taken as they stand, and the
    fingerprint of the inputs tells.
    """
    symbols = tuple(document["symbols"])
    daily, hourly = (
        _panel(document[window], symbols, candles[window], former[window])
        for window in ("daily", "hourly")
    )
    now, before = document["open_interest"]
    as_of_ms = int(document["as_of_ms"])
    return ScoringInputs(
        symbols=symbols,
        as_of_ms=as_of_ms,
        daily=daily,
        hourly=hourly,
        bid=_numbers(document["bid"]),
        ask=_numbers(document["ask"]),
        multiplier=_numbers(document["multiplier"]),
        books=tuple(book and _book(book) for book in document["books"]),
        funding=tuple(
            tuple(Funding(settled, Decimal(rate), length) for settled, rate, length in each)
            for each in document["funding"]
        ),
        open_interest_ms=np.array([as_of_ms - OPEN_INTEREST_MS, as_of_ms], dtype=np.int64),
        open_interest=np.vstack([_numbers(before), _numbers(now)]),
        ages_s={Source(name): _numbers(ages) for name, ages in document["ages_s"].items()},
        half_lives_s={Source(name): one for name, one in document["half_lives_s"].items()},
        excluded=document["excluded"],
        unread=document.get("unread", 0),
    )


def _panel(
    window: Mapping[str, Any],
    symbols: tuple[str, ...],
    candles: Mapping[str, CandleSeries],
    former: Mapping[str, tuple[Revision, ...]],
) -> Panel:
    interval, bars = Interval(window["interval_ms"] // 60_000), window["bars"]
    end = window["first_ms"] + bars * interval.ms
    panel = Panel.of(candles, symbols, interval, end, bars)
    for column, (bits, wanted) in enumerate(zip(window["there"], window["sums"], strict=True)):
        if bits is not None:
            flags = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=bars)
            for name in FIELDS:
                getattr(panel, name)[flags == 0, column] = np.nan
        if checksum(panel, column) != wanted:
            _as_said_then(panel, column, former.get(symbols[column], ()), wanted)
    return panel


def _as_said_then(panel: Panel, column: int, said: tuple[Revision, ...], wanted: int) -> None:
    """Puts former words in place of revised ones until the checksum fits; else all stays."""
    first = int(panel.opened_ms[0]) if len(panel.opened_ms) else 0
    words: dict[int, list[tuple[float, ...]]] = {}
    for one in said:
        row = (one.opened_ms - first) // panel.interval.ms
        if 0 <= row < len(panel.opened_ms) and np.isfinite(panel.close[row, column]):
            words.setdefault(row, []).append(tuple(one.values[name] for name in FIELDS))
    now = {row: _bar(panel, row, column) for row in words}
    # The newest words first: most runs saw all but the last revisions.
    choices = product(*([now[row], *reversed(words[row])] for row in words))
    for choice in islice(choices, _MOST):
        _put(panel, column, dict(zip(words, choice, strict=True)))
        if checksum(panel, column) == wanted:
            return
    _put(panel, column, now)


def _bar(panel: Panel, row: int, column: int) -> tuple[float, ...]:
    return tuple(float(getattr(panel, name)[row, column]) for name in FIELDS)


def _put(panel: Panel, column: int, bars: Mapping[int, tuple[float, ...]]) -> None:
    for row, values in bars.items():
        for name, value in zip(FIELDS, values, strict=True):
            getattr(panel, name)[row, column] = value


def _book(book: Mapping[str, Any]) -> Book:
    return Book(
        book["code"],
        book["sequence"],
        _side(book["bids"]),
        _side(book["asks"]),
        book["stamped_ms"],
    )


def _side(levels: list[tuple[str, int]]) -> tuple[Level, ...]:
    return tuple(Level(Decimal(price), lots) for price, lots in levels)


def _numbers(values: list[float | None]) -> Floats:
    return np.array([np.nan if one is None else one for one in values], dtype=np.float64)
