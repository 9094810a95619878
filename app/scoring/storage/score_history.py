"""Reads the stored scores of whole boards over time, without the boards' other data."""

import asyncio
import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.domain.sections import Family
from app.scoring.storage.tables import (
    IS_PROVISIONAL,
    scoring_run_details,
    scoring_runs,
    symbol_scores,
)

COMPOSITE: Final = "composite"
_RUNS_A_QUERY: Final = 30  # bounds the memory of packed data
_Z: Final = 4  # place of z in a stored reading: name, family, raw, unit, z


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """A complete run as stored; `seq` is the order in which runs were stored."""

    run_id: str
    calculated_at: datetime
    as_of: datetime
    algorithm_version: int
    seq: int


@dataclass(frozen=True, slots=True)
class ScoreValues:
    """Values of one run by name and symbol; unknown values are absent. High is good."""

    symbols: tuple[str, ...]  # all that passed eligibility
    scores: dict[str, dict[str, float]]  # composite and families, 0..1
    factors: dict[str, dict[str, float]]  # z of factors


class _Details(msgspec.Struct):
    """Part of the stored supporting data of one symbol."""

    factors: list[list[Any]]


@dataclass(frozen=True, slots=True)
class ScoreHistoryRepository:
    """Complete runs and the values on them."""

    connection: AsyncConnection

    async def runs(self, since: datetime, until: datetime) -> tuple[ScoredRun, ...]:
        """Returns complete runs calculated in [since, until), in the order of their storing."""
        runs = scoring_runs.c
        rows = await self.connection.execute(
            select(runs.run_id, runs.calculated_at, runs.as_of, runs.algorithm_version, runs.seq)
            .where(runs.calculated_at >= since, runs.calculated_at < until, ~IS_PROVISIONAL)
            .order_by(runs.seq)
        )
        return tuple(ScoredRun(*row) for row in rows)

    async def values(self, run_ids: Sequence[str]) -> dict[str, ScoreValues]:
        """Returns the values of runs by id; nothing for an unknown one."""
        found: dict[str, ScoreValues] = {}
        for first in range(0, len(run_ids), _RUNS_A_QUERY):
            found |= await self._values(run_ids[first : first + _RUNS_A_QUERY])
        return found

    async def _values(self, run_ids: Sequence[str]) -> dict[str, ScoreValues]:
        details, scores = scoring_run_details.c, symbol_scores.c
        supporting = await self.connection.execute(
            select(details.run_id, details.packed).where(details.run_id.in_(run_ids))
        )
        packed: dict[str, bytes] = {row[0]: row[1] for row in supporting}
        columns = (scores[name] for name in ("run_id", "symbol", COMPOSITE, *Family))
        rows = await self.connection.execute(
            select(*columns)
            .where(scores.run_id.in_(run_ids))
            .order_by(scores.run_id, scores.symbol)
        )
        return await asyncio.to_thread(_values_by_run, rows.all(), packed)


def _values_by_run(rows: Sequence[Row[Any]], packed: Mapping[str, bytes]) -> dict[str, ScoreValues]:
    """Returns the values of each run; `rows` are ordered by run."""
    return {
        run_id: _values([tuple(row)[1:] for row in own], packed.get(run_id))
        for run_id, own in itertools.groupby(rows, lambda row: row[0])
    }


def _values(rows: Sequence[tuple[Any, ...]], packed: bytes | None) -> ScoreValues:
    found: dict[str, dict[str, float]] = {name: {} for name in (COMPOSITE, *Family)}
    for row in rows:
        scores: tuple[float | None, ...] = row[1:]
        for name, score in zip(found, scores, strict=True):
            if score is not None:
                found[name][row[0]] = score
    factors: dict[str, dict[str, float]] = {}
    if packed is not None:
        documents = msgspec.json.decode(zlib.decompress(packed), type=dict[str, _Details])
        for symbol, document in documents.items():
            for reading in document.factors:
                own = factors.setdefault(reading[0], {})
                if reading[_Z] is not None:
                    own[symbol] = reading[_Z]
    return ScoreValues(tuple(row[0] for row in rows), found, factors)
