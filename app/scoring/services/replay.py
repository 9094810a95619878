"""Replays a stored run with its inputs and algorithm, and compares both boards."""

import asyncio
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice, product
from typing import Any, Final, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.configuration.domain.sections import Source
from app.foundation.errors import Code, NotFoundError
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.models import Book, CandleSeries, Floats, Funding, Interval, Level
from app.market.domain.panel import FIELDS, Panel, ScoringInputs
from app.market.storage.candles import CandleRepository, CandleRevisionRepository, Revision
from app.market.storage.symbols import SymbolRepository
from app.scoring.domain.board import Board
from app.scoring.domain.engine import score
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.domain.input_hash import board_hash
from app.scoring.domain.market_factors import OPEN_INTEREST_MS, snapshot
from app.scoring.services.algorithm_versions import spec_of
from app.scoring.services.score_reliability import ScoreReliabilityCache
from app.scoring.storage.runs import ScoringRepository

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
        bid=_run_rebuilding_numbers(document["bid"]),
        ask=_run_rebuilding_numbers(document["ask"]),
        multiplier=_run_rebuilding_numbers(document["multiplier"]),
        books=tuple(book and _run_rebuilding_book(book) for book in document["books"]),
        funding=tuple(
            tuple(Funding(settled, Decimal(rate), length) for settled, rate, length in each)
            for each in document["funding"]
        ),
        open_interest_ms=np.array([as_of_ms - OPEN_INTEREST_MS, as_of_ms], dtype=np.int64),
        open_interest=np.vstack([_run_rebuilding_numbers(before), _run_rebuilding_numbers(now)]),
        ages_s={
            Source(name): _run_rebuilding_numbers(ages) for name, ages in document["ages_s"].items()
        },
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


def _run_rebuilding_book(book: Mapping[str, Any]) -> Book:
    return Book(
        book["code"],
        book["sequence"],
        _run_rebuilding_side(book["bids"]),
        _run_rebuilding_side(book["asks"]),
        book["stamped_ms"],
    )


def _run_rebuilding_side(levels: list[tuple[str, int]]) -> tuple[Level, ...]:
    return tuple(Level(Decimal(price), lots) for price, lots in levels)


def _run_rebuilding_numbers(values: list[float | None]) -> Floats:
    return np.array([np.nan if one is None else one for one in values], dtype=np.float64)


FORMAT: Final = 2
_LEVEL: Final = 1  # a third of the time of the default for a tenth more bytes


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
        "books": inputs.books,
        "funding": [
            [(one.settled_ms, one.rate, one.interval_ms) for one in settled]
            for settled in inputs.funding
        ],
        "open_interest": [
            _numbers(snapshot(inputs, inputs.as_of_ms - before)) for before in (0, OPEN_INTEREST_MS)
        ],
        "ages_s": {source: _numbers(ages) for source, ages in inputs.ages_s.items()},
        "half_lives_s": dict(inputs.half_lives_s),
    }
    return zlib.compress(msgspec.json.encode(document), _LEVEL)


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
        "sums": [zlib.crc32(own) for own in _columns(panel)],
    }


def checksum(panel: Panel, column: int) -> int:
    """CRC-32 of every bar of one symbol; of every NaN the same."""
    bars = np.stack([getattr(panel, name)[:, column] for name in FIELDS])
    return zlib.crc32(np.where(np.isnan(bars), np.nan, bars).astype("<f8").tobytes())


def _columns(panel: Panel) -> NDArray[np.float64]:
    """(N, 6, T) little-endian bars of all symbols, as `checksum` reads those of one."""
    bars = np.empty((len(panel.symbols), len(FIELDS), len(panel.opened_ms)), "<f8")
    for at, name in enumerate(FIELDS):
        bars[:, at] = getattr(panel, name).T
    np.copyto(bars, np.nan, where=np.isnan(bars))
    return bars


def _numbers(values: Floats) -> list[float]:
    """Numbers for the encoder, which writes null for those that are not finite."""
    return cast("list[float]", values.tolist())


_FROM_MS: Final = {"daily": Interval.DAY, "hourly": Interval.HOUR}


@dataclass(frozen=True, slots=True)
class Replayed:
    """The stored board and the one that came of its inputs now; equal where the hashes are."""

    board: Board
    again: Board
    board_hash: str
    again_hash: str

    @property
    def is_identical(self) -> bool:
        return self.board_hash == self.again_hash

    @property
    def differing(self) -> tuple[str, ...]:
        """Symbols whose cards are not the same, by name."""
        names = {card.symbol for one in (self.board, self.again) for card in one.cards}
        return tuple(sorted(n for n in names if self.board.card(n) != self.again.card(n)))


@dataclass(frozen=True, slots=True)
class Replaying:
    """Reads everything, then recomputes it beside the event loop; nothing is written."""

    database: Database
    factors: tuple[Factor, ...] = FACTORS

    async def replay(self, run_id: str) -> Replayed:
        """Raises NotFoundError without such a run or its inputs, which are kept for a day.

        So it does where its algorithm has a factor that this service has not.
        """
        async with self.database.read() as unit:
            board = await unit.get(ScoringRepository).run(run_id)
            if board is None:
                raise NotFoundError(Code.NOT_FOUND, "There is no scoring run of that id.")
            packed = await unit.get(ScoringRepository).inputs(run_id)
            if packed is None:
                raise NotFoundError(
                    Code.NOT_FOUND, "The inputs of that run are not kept any more: for a day only."
                )
            stored = await unit.get(ScoringRepository).algorithm(
                board.algorithm, board.algorithm_version
            )
            document = await asyncio.to_thread(unpack, packed)
            candles = await _candles(unit, document, board.calculated_at)
        spec = None if stored is None else spec_of(stored.name, stored.body, self.factors)
        if spec is None:
            raise NotFoundError(
                Code.NOT_FOUND, "That run was made by an algorithm that is not here any more."
            )

        def work() -> Replayed:
            inputs = rebuilt(document, *candles)
            past = ScoreReliabilityCache()
            reliability, noise = past.of(inputs, spec), past.noise(inputs, spec)
            draft = score(inputs, spec, reliability, board.moments, noise)
            again = draft.issued(
                run_id=board.run_id,
                algorithm=board.algorithm,
                algorithm_version=board.algorithm_version,
                configuration_version=board.configuration_version,
                calculated_at=board.calculated_at,
                duration_ms=board.duration_ms,
                data_source=board.data_source,
                is_provisional=board.is_provisional,
            )
            return Replayed(board, again, board_hash(board), board_hash(again))

        return await asyncio.to_thread(work)


async def _candles(
    unit: UnitOfWork, document: Mapping[str, Any], at: datetime
) -> tuple[Candles, Former]:
    """Candles by window and symbol as they stand now, and what was said of them before."""
    # Of a name the listing that was there then: what came later goes first, then what had gone.
    records = sorted(
        await unit.get(SymbolRepository).all(),
        key=lambda one: (one.first_seen <= at, one.vanished_at is None or one.vanished_at > at),
    )
    known = {one.symbol: one.id for one in records}
    names = {known[symbol]: symbol for symbol in document["symbols"] if symbol in known}
    candles: Candles = {}
    former: Former = {}
    for window, interval in _FROM_MS.items():
        first = document[window]["first_ms"]
        found = await unit.get(CandleRepository).load(tuple(names), interval, first)
        candles[window] = {names[one]: series for one, series in found.items()}
        said = await unit.get(CandleRevisionRepository).since(tuple(names), interval, first)
        former[window] = {names[one]: revisions for one, revisions in said.items()}
    return candles, former
