"""Stores boards with their inputs, and reads the scores of a symbol over time.

Symbols excluded by eligibility, half of the universe, are JSON in the run's row. Key figures are
columns; supporting data is one compressed document per run.
"""

import asyncio
import json
import math
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, Select, Text, and_, bindparam, func, or_, select, tuple_, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.domain.sections import Family
from app.foundation.data_status import DataSource
from app.foundation.sql.schema import strict_json
from app.foundation.sql.statements import add_rows, insert
from app.market.storage.tables import contracts as listings
from app.scoring.domain.board import Board, Card, CardStatus, Confidence, FactorReading
from app.scoring.domain.board_retention import StoredRun
from app.scoring.storage.moments import moments_from_json, moments_to_json
from app.scoring.storage.tables import (
    IS_PROVISIONAL,
    scoring_algorithms,
    scoring_run_coverage,
    scoring_run_details,
    scoring_run_moments,
    scoring_runs,
    symbol_scores,
)

# For 600 scores zlib takes 17 ms at level 1 and 59 ms at level 6, which is 14 % smaller.
_COMPRESSION: Final = 1


def absent_card(symbol: str, reason: str | None, detail: str | None) -> Card:
    """Returns the card of a symbol excluded by eligibility."""
    return Card(
        symbol=symbol,
        status=CardStatus.UNAVAILABLE,
        reason=reason,
        families=dict.fromkeys(Family),
        composite=None,
        z=None,
        confidence=None,
        rank=None,
        volatility=None,
        factors=(),
        detail=detail,
    )


def excluded_card(card: Card) -> Card:
    """Returns `card` reduced to symbol, reason and detail; equal to `card` if it has no more."""
    return absent_card(card.symbol, card.reason, card.detail)


def card_to_row(board: Board, card: Card) -> dict[str, Any]:
    confidence = card.confidence
    return {
        "run_id": board.run_id,
        "symbol": card.symbol,
        "calculated_at": board.calculated_at,
        "status": card.status.value,
        "reason": card.reason,
        "rank": card.rank,
        "composite": card.composite,
        **{family.value: card.families.get(family) for family in Family},
        "z": card.z,
        "confidence": None if confidence is None else confidence.level,
        "volatility": card.volatility,
    }


def _document(card: Card) -> dict[str, Any]:
    """Supporting data of one symbol; raises ValueError for NaN and Infinity."""
    document: dict[str, Any] = {
        "detail": card.detail,
        "confidence": None if card.confidence is None else _values(card.confidence),
        "families": [family.value for family in card.families],
        "factors": [_values(reading) for reading in card.factors],
        "noise": card.noise,
    }
    if card.neutralisation:
        document["neutralisation"] = dict(card.neutralisation)
    # msgspec takes a tenth of the time of the strict encoder, but writes NaN as null.
    if not _is_plain(card):
        strict_json(document)
    return document


def _is_plain(card: Card) -> bool:
    """True if all numbers are finite, by one sum, and supporting values are plain text."""
    total = (card.noise or 0.0) + sum(card.neutralisation.values())
    if (parts := card.confidence) is not None:
        total += parts.level + parts.completeness + parts.freshness + parts.sample
    for reading in card.factors:
        supporting = reading.supporting
        if supporting is not None and not all(type(value) is str for value in supporting.values()):
            return False
        total += reading.weight
        total += (reading.raw or 0.0) + (reading.z or 0.0) + (reading.contribution or 0.0)
    return math.isfinite(total)


def pack_details(cards: Iterable[Card]) -> bytes:
    """Returns supporting data of `cards` as zlib-compressed JSON; raises ValueError for NaN."""
    documents = {card.symbol: _document(card) for card in cards}
    return zlib.compress(msgspec.json.encode(documents), _COMPRESSION)


def unpack_details(packed: bytes, symbols: Collection[str] | None = None) -> dict[str, Any]:
    """Returns documents by symbol; with `symbols`, the others are not decoded."""
    documents = msgspec.json.decode(zlib.decompress(packed), type=dict[str, msgspec.Raw])
    return {
        symbol: msgspec.json.decode(raw)
        for symbol, raw in documents.items()
        if symbols is None or symbol in symbols
    }


def _values(value: Confidence | FactorReading) -> list[Any]:
    """Field values in order, without names, which would be written a million times a day.

    Supporting data of a plug-in comes last and is omitted if missing.
    """
    if isinstance(value, FactorReading):
        return list(value[:-1] if value.supporting is None else value)
    return [getattr(value, name) for name in type(value).__slots__]


def card_from_row(row: Row[Any], supporting: dict[str, Any]) -> Card:
    parts = supporting["confidence"]
    return Card(
        symbol=row.symbol,
        status=CardStatus(row.status),
        reason=row.reason,
        families=_families(row, supporting["families"]),
        composite=row.composite,
        z=row.z,
        confidence=None if parts is None else Confidence(*parts),
        rank=row.rank,
        volatility=row.volatility,
        factors=_readings(supporting["factors"]),
        detail=supporting["detail"],
        noise=supporting["noise"],
        neutralisation=supporting.get("neutralisation", {}),
    )


def _families(row: Row[Any], names: Iterable[str]) -> dict[Family, float | None]:
    return {Family(name): getattr(row, name) for name in names}


def _readings(rows: Sequence[Sequence[Any]]) -> tuple[FactorReading, ...]:
    return tuple(FactorReading(name, Family(family), *rest) for name, family, *rest in rows)


_MOMENTS: Final = (
    select(scoring_run_moments.c.moments)
    .where(scoring_run_moments.c.run_id == scoring_runs.c.run_id)
    .scalar_subquery()
    .label("moments")
)
_DETAILS: Final = (
    select(scoring_run_details.c.packed)
    .where(scoring_run_details.c.run_id == scoring_runs.c.run_id)
    .scalar_subquery()
    .label("details")
)
_SOURCE_COVERAGE: Final = (
    select(scoring_run_coverage.c.source_coverage)
    .where(scoring_run_coverage.c.run_id == scoring_runs.c.run_id)
    .scalar_subquery()
    .label("source_coverage")
)
_RUN: Final = (
    *(column for column in scoring_runs.columns if column.name != "inputs"),
    _MOMENTS,
    _DETAILS,
    _SOURCE_COVERAGE,
    IS_PROVISIONAL.label("is_provisional"),
)
_RUN_KEYS: Final = frozenset({"run_id", "calculated_at"})  # both tables have them


@dataclass(frozen=True, slots=True)
class StoredAlgorithm:
    """An immutable version of a scoring algorithm."""

    name: str
    version: int
    body: dict[str, Any]
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class ScoringRepository:
    """Stores and reads scoring runs."""

    connection: AsyncConnection

    async def save(self, board: Board, inputs: bytes | None) -> int:
        """Saves the board; `inputs` are the compressed inputs for a replay.

        Returns the sequence number of the run: the newest run has the highest.
        """
        # In a thread, because it would block the event loop.
        excluded, rows, details = await asyncio.to_thread(_split_board, board)
        newest = await self.connection.execute(select(func.max(scoring_runs.c.seq)))
        seq = (newest.scalar() or 0) + 1
        run = {
            "run_id": board.run_id,
            "seq": seq,
            "algorithm": board.algorithm,
            "algorithm_version": board.algorithm_version,
            "configuration_version": board.configuration_version,
            "as_of": board.as_of,
            "calculated_at": board.calculated_at,
            "duration_ms": board.duration_ms,
            "data_source": board.data_source.value,
            "input_hash": board.input_hash,
            "universe_size": board.universe_size,
            "coverage": dict(board.coverage),
            "excluded": {name: [card.reason, card.detail] for name, card in excluded.items()},
            "inputs": inputs,
        }
        await self.connection.execute(scoring_runs.insert(), run)
        coverage = {
            "run_id": board.run_id,
            "source_coverage": dict(board.source_coverage),
            "is_provisional": board.is_provisional,
        }
        await self.connection.execute(scoring_run_coverage.insert(), coverage)
        if board.moments:
            used = {"run_id": board.run_id, "moments": moments_to_json(board.moments)}
            await self.connection.execute(scoring_run_moments.insert(), used)
        await self.connection.execute(
            scoring_run_details.insert(), {"run_id": board.run_id, "packed": details}
        )
        await add_rows(self.connection, symbol_scores, rows)
        return seq

    async def latest(self) -> Board | None:
        """Board of the newest run by sequence number; None before the first run."""
        return await self._board(_newest(select(*_RUN)))

    async def latest_complete(self) -> Board | None:
        """Newest board that is not provisional; None before the first one."""
        return await self._board(_complete(_newest(select(*_RUN))))

    async def newest_run_id(self) -> str | None:
        """Id of the newest run of any process; None before the first run."""
        run_id: str | None = (
            await self.connection.execute(_newest(select(scoring_runs.c.run_id)))
        ).scalar()
        return run_id

    async def run(self, run_id: str) -> Board | None:
        return await self._board(select(*_RUN).where(scoring_runs.c.run_id == run_id))

    async def inputs(self, run_id: str) -> bytes | None:
        """Inputs given to `save`; None for an unknown run or deleted inputs."""
        wanted = select(scoring_runs.c.inputs).where(scoring_runs.c.run_id == run_id)
        inputs: bytes | None = (await self.connection.execute(wanted)).scalar()
        return inputs

    async def history(
        self, symbol: str, before: tuple[datetime, str] | None, limit: int
    ) -> tuple[Board, ...]:
        """Past complete boards, newest first, each with the card of `symbol` alone.

        Scores of a former listing of the symbol are excluded. `before` is (calculated_at, run_id)
        of the last board of the previous page.
        """
        runs, lines = scoring_runs, symbol_scores
        own = tuple(column for column in lines.columns if column.name not in _RUN_KEYS)
        named = type_coerce(runs.c.excluded, Text).contains(f"{json.dumps(symbol)}:")
        wanted = (
            select(*_RUN, *own)
            .outerjoin(lines, and_(lines.c.run_id == runs.c.run_id, lines.c.symbol == symbol))
            .where(or_(lines.c.symbol.is_not(None), named), ~IS_PROVISIONAL)
            .order_by(runs.c.calculated_at.desc(), runs.c.run_id.desc())
            .limit(limit)
        )
        listed_at = (await self._first_seen((symbol,))).get(symbol)
        if listed_at is not None:
            wanted = wanted.where(runs.c.calculated_at >= listed_at)
        if before is not None:
            wanted = wanted.where(tuple_(runs.c.calculated_at, runs.c.run_id) < before)
        rows = (await self.connection.execute(wanted)).all()
        return await asyncio.to_thread(_boards_from_rows, symbol, rows)

    async def _first_seen(self, names: Iterable[str]) -> dict[str, datetime]:
        """First sight of the current listing by symbol; symbols without a contract are left out."""
        wanted = (
            select(listings.c.symbol, func.max(listings.c.first_seen).label("first_seen"))
            .where(listings.c.symbol.in_(tuple(names)))
            .group_by(listings.c.symbol)
        )
        rows = await self.connection.execute(wanted)
        return {row.symbol: row.first_seen for row in rows}

    async def latest_composites(self, symbols: Iterable[str]) -> dict[str, float]:
        """Composite scores of `symbols` on the newest complete board, without unscored ones."""
        scores = symbol_scores
        newest = _complete(_newest(select(scoring_runs.c.run_id))).scalar_subquery()
        wanted = select(scores.c.symbol, scores.c.composite).where(
            scores.c.run_id == newest,
            scores.c.symbol.in_(tuple(symbols)),
            scores.c.composite.is_not(None),
        )
        return {row.symbol: row.composite for row in await self.connection.execute(wanted)}

    async def stored_runs(self, before: datetime) -> tuple[StoredRun, ...]:
        """Runs calculated before `before`, oldest first."""
        table = scoring_runs
        rows = await self.connection.execute(
            select(
                table.c.run_id,
                table.c.calculated_at,
                table.c.input_hash,
                IS_PROVISIONAL.label("is_provisional"),
                table.c.inputs.is_not(None).label("has_inputs"),
            )
            .where(table.c.calculated_at < before)
            .order_by(table.c.calculated_at, table.c.run_id)
        )
        return tuple(StoredRun(*row) for row in rows)

    async def delete_runs(self, run_ids: Collection[str]) -> None:
        """Deletes runs with all dependent rows."""
        keys = [{"key": run_id} for run_id in run_ids]
        if keys:
            table = scoring_runs
            await self.connection.execute(
                table.delete().where(table.c.run_id == bindparam("key")), keys
            )

    async def drop_inputs(self, run_ids: Collection[str]) -> None:
        """Deletes the inputs of runs; their scores stay."""
        keys = [{"key": run_id} for run_id in run_ids]
        if keys:
            table = scoring_runs
            await self.connection.execute(
                table.update().where(table.c.run_id == bindparam("key")).values(inputs=None),
                keys,
            )

    async def algorithms(self) -> tuple[StoredAlgorithm, ...]:
        """Newest version of each algorithm, by name."""
        table = scoring_algorithms
        rows = await self.connection.execute(select(table).order_by(table.c.name, table.c.version))
        newest = {row.name: row for row in rows}
        return tuple(_algorithm(row) for row in newest.values())

    async def versions(self, name: str) -> tuple[StoredAlgorithm, ...]:
        """Returns all versions of an algorithm, the oldest first."""
        table = scoring_algorithms
        wanted = select(table).where(table.c.name == name).order_by(table.c.version)
        return tuple(_algorithm(row) for row in await self.connection.execute(wanted))

    async def algorithm(self, name: str, version: int) -> StoredAlgorithm | None:
        """One version of an algorithm; None if unknown."""
        table = scoring_algorithms
        wanted = select(table).where(table.c.name == name, table.c.version == version)
        row = (await self.connection.execute(wanted)).first()
        return None if row is None else _algorithm(row)

    async def insert_algorithm(self, algorithm: StoredAlgorithm) -> None:
        """Stores a version; an existing one stays unchanged."""
        row = {name: getattr(algorithm, name) for name in StoredAlgorithm.__slots__}
        statement = insert(self.connection, scoring_algorithms).on_conflict_do_nothing()
        await self.connection.execute(statement, row)

    async def _board(self, wanted: Select[Any]) -> Board | None:
        run = (await self.connection.execute(wanted)).first()
        if run is None:
            return None
        table = symbol_scores
        rows = await self.connection.execute(
            select(table).where(table.c.run_id == run.run_id).order_by(table.c.rank, table.c.symbol)
        )
        details = await asyncio.to_thread(unpack_details, run.details)
        cards = [card_from_row(row, details[row.symbol]) for row in rows]
        ranked = [card for card in cards if card.rank is not None]
        rest = [card for card in cards if card.rank is None]
        rest += [absent_card(symbol, *reason) for symbol, reason in run.excluded.items()]
        return _board(run, (*ranked, *sorted(rest, key=lambda card: card.symbol)))


def _algorithm(row: Row[Any]) -> StoredAlgorithm:
    return StoredAlgorithm(row.name, row.version, row.body, row.created_at, row.created_by)


def _split_board(board: Board) -> tuple[dict[str, Card], list[dict[str, Any]], bytes]:
    """Excluded symbols, rows of all others, and their packed details."""
    excluded = {card.symbol: card for card in board.cards if card == excluded_card(card)}
    cards = [card for card in board.cards if card.symbol not in excluded]
    return excluded, [card_to_row(board, card) for card in cards], pack_details(cards)


def _boards_from_rows(symbol: str, rows: Sequence[Row[Any]]) -> tuple[Board, ...]:
    """Boards with the card of `symbol` alone; unpacks the details of each run."""
    boards = []
    for row in rows:
        if row.symbol is None:
            card = absent_card(symbol, *row.excluded[symbol])
        else:
            card = card_from_row(row, unpack_details(row.details, (symbol,))[symbol])
        boards.append(_board(row, (card,)))
    return tuple(boards)


def _newest(wanted: Select[Any], count: int = 1) -> Select[Any]:
    return wanted.order_by(scoring_runs.c.seq.desc()).limit(count)


def _complete(wanted: Select[Any]) -> Select[Any]:
    return wanted.where(~IS_PROVISIONAL)


def _board(row: Row[Any], cards: tuple[Card, ...]) -> Board:
    return Board(
        run_id=row.run_id,
        algorithm=row.algorithm,
        algorithm_version=row.algorithm_version,
        configuration_version=row.configuration_version,
        as_of=row.as_of,
        calculated_at=row.calculated_at,
        duration_ms=row.duration_ms,
        data_source=DataSource(row.data_source),
        input_hash=row.input_hash,
        universe_size=row.universe_size,
        coverage=row.coverage,
        cards=cards,
        moments=moments_from_json(row.moments),
        source_coverage=row.source_coverage or {},
        is_provisional=row.is_provisional,
        seq=row.seq,
    )
