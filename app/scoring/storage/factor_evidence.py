"""Stores the evidence of scores; research writes it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Row,
    String,
    Table,
    Text,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.schema import FiniteFloat, JsonText, UtcInstant, between, metadata
from app.foundation.sql.statements import upsert
from app.scoring.domain.factor_evidence import (
    EvidenceLabel,
    EvidenceMeasurement,
    EvidenceSource,
    FactorEvidence,
    ScoreLevel,
    order_evidence,
)

_DAY_CHARS: Final = 10  # YYYY-MM-DD

factor_evidence = Table(
    "factor_evidence",
    metadata,
    Column("source", String(16), nullable=False),
    Column("algorithm", String(64), nullable=False),
    Column("algorithm_version", Integer, nullable=False),
    Column("level", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("horizon", Integer, nullable=False),
    Column("first_day", String(_DAY_CHARS), nullable=False),
    Column("last_day", String(_DAY_CHARS), nullable=False),
    Column("measured_at", UtcInstant, nullable=False),
    Column("as_of", UtcInstant),
    Column("data_source", Text, nullable=False),
    Column("data_hash", String(64), nullable=False),
    Column("trials", Integer, nullable=False),
    Column("board_days", Integer, nullable=False),
    Column("versions", JsonText, nullable=False),
    Column("days", Integer, nullable=False),
    Column("ic", FiniteFloat),
    Column("ic_error", FiniteFloat),
    Column("ic_t", FiniteFloat),
    Column("spread", FiniteFloat),
    Column("spread_t", FiniteFloat),
    Column("turnover", FiniteFloat),
    Column("coverage", FiniteFloat),
    Column("decay", JsonText, nullable=False),  # [[delay in days, IC], ...]
    Column("label", String(16)),
    Column("reason", Text),
    PrimaryKeyConstraint(
        "source", "algorithm", "algorithm_version", "level", "name", "horizon", "first_day",
        "last_day",
    ),
    CheckConstraint("source IN ('live', 'backtest')", name="source_known"),
    CheckConstraint("level IN ('composite', 'family', 'factor')", name="level_known"),
    CheckConstraint(
        "label IN ('proven', 'weak', 'unproven', 'harmful')", name="label_known"
    ),
    CheckConstraint("first_day <= last_day", name="period_order"),
    CheckConstraint("ic_error >= 0", name="ic_error_positive"),
    between("horizon", "1", "1000"),
    between("trials", "0", "1000000000"),
    between("days", "0", "100000"),
    between("ic", "-1", "1"),
    between("turnover", "0", "1"),
    between("coverage", "0", "1"),
    Index("ix_factor_evidence_source_measured_at", "source", "measured_at"),
)  # fmt: skip
_TABLE: Final = factor_evidence.c


@dataclass(frozen=True, slots=True)
class FactorEvidenceRepository:
    """Measurements of evidence; one with the same key replaces its predecessor."""

    connection: AsyncConnection

    async def save(self, found: Iterable[FactorEvidence]) -> None:
        """Stores the evidence of one measurement."""
        rows = [_to_row(one) for one in found]
        if rows:
            await self.connection.execute(upsert(self.connection, factor_evidence), rows)

    async def newest(
        self, source: EvidenceSource, horizon: int, last_day: date | None = None
    ) -> tuple[FactorEvidence, ...]:
        """Returns the newest measurement: all scores of the same `measured_at`.

        With `last_day` only a measurement whose period ends with that day. Empty without one.
        """
        chosen = [_TABLE.source == source.value, _TABLE.horizon == horizon]
        if last_day is not None:
            chosen.append(_TABLE.last_day == last_day.isoformat())
        newest = (
            select(_TABLE.measured_at)
            .where(*chosen)
            .order_by(_TABLE.measured_at.desc())
            .limit(1)
            .scalar_subquery()
        )
        rows = await self.connection.execute(
            select(factor_evidence).where(*chosen, _TABLE.measured_at == newest)
        )
        return order_evidence(map(_from_row, rows))


def _to_row(one: FactorEvidence) -> dict[str, Any]:
    head = one.measurement
    row = {
        column.name: getattr(head if hasattr(head, column.name) else one, column.name)
        for column in factor_evidence.columns
    }
    return row | {
        "source": head.source.value,
        "level": one.level.value,
        "label": None if one.label is None else one.label.value,
        "first_day": head.first_day.isoformat(),
        "last_day": head.last_day.isoformat(),
        "versions": list(head.versions),
        "decay": [list(pair) for pair in one.decay],
    }


def _from_row(row: Row[Any]) -> FactorEvidence:
    measurement = EvidenceMeasurement(
        source=EvidenceSource(row.source),
        algorithm=row.algorithm,
        algorithm_version=row.algorithm_version,
        horizon=row.horizon,
        first_day=date.fromisoformat(row.first_day),
        last_day=date.fromisoformat(row.last_day),
        measured_at=row.measured_at,
        as_of=row.as_of,
        data_source=row.data_source,
        data_hash=row.data_hash,
        trials=row.trials,
        board_days=row.board_days,
        versions=tuple(row.versions),
    )
    return FactorEvidence(
        measurement=measurement,
        level=ScoreLevel(row.level),
        name=row.name,
        days=row.days,
        ic=row.ic,
        ic_error=row.ic_error,
        ic_t=row.ic_t,
        spread=row.spread,
        spread_t=row.spread_t,
        turnover=row.turnover,
        coverage=row.coverage,
        decay=tuple((delay, ic) for delay, ic in row.decay),
        label=None if row.label is None else EvidenceLabel(row.label),
        reason=row.reason,
    )
