"""Stores the inputs of runs, replays a run with its algorithm and compares both boards."""

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
from app.market.domain.models import (
    Book,
    CandleSeries,
    Floats,
    Funding,
    Interval,
    Level,
    PackedLevels,
)
from app.market.domain.panel import FIELDS, Panel, ScoringInputs
from app.market.domain.trade_flow import TradeFlow
from app.market.storage.candles import CandleRepository, CandleRevision, CandleRevisionRepository
from app.market.storage.symbols import SymbolRepository
from app.scoring.domain.board import Board
from app.scoring.domain.composite import FORMULA_VERSION
from app.scoring.domain.engine import score
from app.scoring.domain.factors import FACTORS, Factor
from app.scoring.domain.input_hash import board_hash
from app.scoring.domain.market_factors import OPEN_INTEREST_MS, snapshot
from app.scoring.services.algorithm_versions import spec_from_json
from app.scoring.services.score_reliability import ScoreReliabilityCache
from app.scoring.storage.runs import ScoringRepository

Candles = dict[str, dict[str, CandleSeries]]  # by window and symbol, current values
Revisions = dict[str, dict[str, tuple[CandleRevision, ...]]]  # by window and symbol, former values
_MAX_COMBINATIONS: Final = 4_096  # combinations of revisions tried for one symbol


def rebuild_inputs(
    document: Mapping[str, Any], candles: Candles, former: Revisions
) -> ScoringInputs:
    """Returns the inputs given to `pack_inputs`.

    Later bars are left out. Of a revised bar the version that matches the stored checksum is used.
    Without a match the current bars are used, and the input hash differs.
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
        bid=_floats(document["bid"]),
        ask=_floats(document["ask"]),
        multiplier=_floats(document["multiplier"]),
        books=tuple(book and _book(book) for book in document["books"]),
        funding=tuple(
            tuple(Funding(settled, Decimal(rate), length) for settled, rate, length in each)
            for each in document["funding"]
        ),
        open_interest_ms=np.array([as_of_ms - OPEN_INTEREST_MS, as_of_ms], dtype=np.int64),
        open_interest=np.vstack([_floats(before), _floats(now)]),
        ages_s={Source(name): _floats(ages) for name, ages in document["ages_s"].items()},
        half_lives_s={Source(name): seconds for name, seconds in document["half_lives_s"].items()},
        excluded=document["excluded"],
        unread=document.get("unread", 0),
        flow=_flow(document.get("flow")),
    )


def _flow(columns: list[list[float | None]] | None) -> TradeFlow | None:
    return None if columns is None else TradeFlow(*map(_floats, columns))


def _panel(
    window: Mapping[str, Any],
    symbols: tuple[str, ...],
    candles: Mapping[str, CandleSeries],
    former: Mapping[str, tuple[CandleRevision, ...]],
) -> Panel:
    interval, bars = Interval(window["interval_ms"] // 60_000), window["bars"]
    end = window["first_ms"] + bars * interval.ms
    panel = Panel.from_series(candles, symbols, interval, end, bars)
    for column, (bits, wanted) in enumerate(zip(window["there"], window["sums"], strict=True)):
        if bits is not None:
            flags = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=bars)
            for name in FIELDS:
                getattr(panel, name)[flags == 0, column] = np.nan
        if checksum(panel, column) != wanted:
            _restore_revision(panel, column, former.get(symbols[column], ()), wanted)
    return panel


def _restore_revision(
    panel: Panel, column: int, revisions: tuple[CandleRevision, ...], wanted: int
) -> None:
    """Replaces revised bars by former values until the checksum matches; else restores them."""
    first = int(panel.opened_ms[0]) if len(panel.opened_ms) else 0
    former: dict[int, list[tuple[float, ...]]] = {}
    for revision in revisions:
        row = (revision.opened_ms - first) // panel.interval.ms
        if 0 <= row < len(panel.opened_ms) and np.isfinite(panel.close[row, column]):
            former.setdefault(row, []).append(tuple(revision.values[name] for name in FIELDS))
    current = {row: _bar(panel, row, column) for row in former}
    # Newest values first: most runs used all but the last revisions.
    choices = product(*([current[row], *reversed(former[row])] for row in former))
    for choice in islice(choices, _MAX_COMBINATIONS):
        _set_bars(panel, column, dict(zip(former, choice, strict=True)))
        if checksum(panel, column) == wanted:
            return
    _set_bars(panel, column, current)


def _bar(panel: Panel, row: int, column: int) -> tuple[float, ...]:
    return tuple(float(getattr(panel, name)[row, column]) for name in FIELDS)


def _set_bars(panel: Panel, column: int, bars: Mapping[int, tuple[float, ...]]) -> None:
    for row, values in bars.items():
        for name, value in zip(FIELDS, values, strict=True):
            getattr(panel, name)[row, column] = value


def _book(book: Mapping[str, Any]) -> Book:
    return Book(
        book["code"],
        book["sequence"],
        _levels(book["bids"]),
        _levels(book["asks"]),
        book["stamped_ms"],
    )


def _levels(levels: list[tuple[str, int]]) -> tuple[Level, ...]:
    return tuple(Level(Decimal(price), lots) for price, lots in levels)


def _floats(values: list[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


FORMAT: Final = 2
_LEVEL: Final = 1  # a third of the time of the default for a tenth more bytes


def pack_inputs(inputs: ScoringInputs) -> bytes:
    """Returns compressed JSON; missing numbers are null, prices and rates decimal text."""
    flow = inputs.flow
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
        "flow": None if flow is None else [_numbers(one) for one in flow.columns],
    }
    return zlib.compress(msgspec.json.encode(document, enc_hook=_encode_levels), _LEVEL)


def _encode_levels(value: object) -> list[tuple[str, int]]:
    """Encodes packed levels like plain ones, with prices as text."""
    if not isinstance(value, PackedLevels):
        raise NotImplementedError(type(value))
    return list(zip(value.prices.split(), map(int, value.lots.split()), strict=True))


def unpack_inputs(packed: bytes) -> dict[str, Any]:
    """Returns the document of `pack_inputs`."""
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
    """CRC-32 of all bars of one symbol, with one bit pattern for every NaN."""
    bars = np.stack([getattr(panel, name)[:, column] for name in FIELDS])
    return zlib.crc32(np.where(np.isnan(bars), np.nan, bars).astype("<f8").tobytes())


def _columns(panel: Panel) -> NDArray[np.float64]:
    """(N, 6, T) little-endian bars of all symbols, in the layout of `checksum`."""
    bars = np.empty((len(panel.symbols), len(FIELDS), len(panel.opened_ms)), "<f8")
    for at, name in enumerate(FIELDS):
        bars[:, at] = getattr(panel, name).T
    np.copyto(bars, np.nan, where=np.isnan(bars))
    return bars


def _numbers(values: Floats) -> list[float]:
    """Numbers for the encoder, which writes null for non-finite ones."""
    return cast("list[float]", values.tolist())


_WINDOWS: Final = {"daily": Interval.DAY, "hourly": Interval.HOUR}


@dataclass(frozen=True, slots=True)
class RunReplayResult:
    """The stored board and the replayed one, with their hashes."""

    board: Board
    replayed: Board
    board_hash: str
    replayed_hash: str

    @property
    def is_identical(self) -> bool:
        return self.board_hash == self.replayed_hash

    @property
    def differing(self) -> tuple[str, ...]:
        """Symbols whose cards differ, sorted by name."""
        names = {card.symbol for board in (self.board, self.replayed) for card in board.cards}
        return tuple(sorted(n for n in names if self.board.card(n) != self.replayed.card(n)))


@dataclass(frozen=True, slots=True)
class RunReplayer:
    """Recomputes stored runs in a thread; nothing is written."""

    database: Database
    factors: tuple[Factor, ...] = FACTORS

    async def replay(self, run_id: str) -> RunReplayResult:
        """Recomputes a run and compares it with its stored board.

        Raises NotFoundError for an unknown run, deleted inputs or an algorithm with a factor that
        this service no longer has.
        """
        async with self.database.read() as unit:
            board = await unit.get(ScoringRepository).run(run_id)
            if board is None:
                raise NotFoundError(Code.NOT_FOUND, "There is no scoring run with this id.")
            packed = await unit.get(ScoringRepository).inputs(run_id)
            if packed is None:
                raise NotFoundError(Code.NOT_FOUND, "The inputs of this run are no longer stored.")
            stored = await unit.get(ScoringRepository).algorithm(
                board.algorithm, board.algorithm_version
            )
            document = await asyncio.to_thread(unpack_inputs, packed)
            candles = await _candles(unit, document, board.calculated_at)
        spec = None if stored is None else spec_from_json(stored.name, stored.body, self.factors)
        if spec is None:
            formula = None if stored is None else stored.body.get("formula")
            raise NotFoundError(
                Code.NOT_FOUND,
                f"The algorithm of this run is no longer available: {board.algorithm} version"
                f" {board.algorithm_version} needs formula {formula} and its factors; this service"
                f" has formula {FORMULA_VERSION}.",
            )

        def work() -> RunReplayResult:
            inputs = rebuild_inputs(document, *candles)
            past = ScoreReliabilityCache()
            reliability, noise = past.reliability(inputs, spec), past.noise(inputs, spec)
            draft = score(inputs, spec, reliability, board.moments, noise)
            replayed = draft.to_board(
                run_id=board.run_id,
                algorithm=board.algorithm,
                algorithm_version=board.algorithm_version,
                configuration_version=board.configuration_version,
                calculated_at=board.calculated_at,
                duration_ms=board.duration_ms,
                data_source=board.data_source,
                is_provisional=board.is_provisional,
            )
            return RunReplayResult(board, replayed, board_hash(board), board_hash(replayed))

        return await asyncio.to_thread(work)


async def _candles(
    unit: UnitOfWork, document: Mapping[str, Any], at: datetime
) -> tuple[Candles, Revisions]:
    """Candles by window and symbol with their current values, and their former values."""
    # The listing active at `at` comes last and wins: later ones sort first, then vanished ones.
    records = sorted(
        await unit.get(SymbolRepository).all(),
        key=lambda one: (one.first_seen <= at, one.vanished_at is None or one.vanished_at > at),
    )
    known = {record.symbol: record.id for record in records}
    names = {known[symbol]: symbol for symbol in document["symbols"] if symbol in known}
    candles: Candles = {}
    former: Revisions = {}
    for window, interval in _WINDOWS.items():
        first = document[window]["first_ms"]
        stored = await unit.get(CandleRepository).load(tuple(names), interval, first)
        candles[window] = {names[symbol_id]: series for symbol_id, series in stored.items()}
        revised = await unit.get(CandleRevisionRepository).since(tuple(names), interval, first)
        former[window] = {names[symbol_id]: revisions for symbol_id, revisions in revised.items()}
    return candles, former
