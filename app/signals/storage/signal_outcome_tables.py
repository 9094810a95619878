"""The tables of what came of signals, and of how good those who judged them have been."""

from typing import Final

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

from app.foundation.sql.metadata import between, metadata
from app.foundation.sql.types import FiniteFloat, UtcInstant

_OPEN: Final = "booked_at IS NULL"

# Symbol, source and type stand here again: booking looks for the last one of each that counts.
signal_outcomes = Table(
    "signal_outcomes",
    metadata,
    Column("signal_id", String(36), nullable=False),
    Column("source", String(64), nullable=False),
    Column("type", String(64), nullable=False, server_default=""),
    Column("symbol", String(64), nullable=False),
    Column("starts_at", UtcInstant, nullable=False),
    Column("ends_at", UtcInstant, nullable=False),
    Column("booked_at", UtcInstant),
    Column("beat", Boolean),
    Column("gain", FiniteFloat),
    Column("median", FiniteFloat),
    Column("names", Integer),
    Column("reason", Text),
    Column("counts_for_agents", Boolean, nullable=False),
    Column("counts_for_source", Boolean, nullable=False),
    PrimaryKeyConstraint("signal_id"),
    ForeignKeyConstraint(["signal_id"], ["signals.signal_id"]),
    CheckConstraint("ends_at > starts_at", name="window"),
    CheckConstraint(f"beat IS NULL OR NOT ({_OPEN})", name="beat_booked"),
    Index(
        "ix_signal_outcomes_open",
        "ends_at",
        "starts_at",
        "signal_id",
        sqlite_where=text(_OPEN),
        postgresql_where=text(_OPEN),
    ),
    Index("ix_signal_outcomes_symbol", "symbol", "ends_at"),
)

# Sums over all forecasts of about one probability: they stay when signals are forgotten.
signal_records = Table(
    "signal_records",
    metadata,
    Column("kind", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("type", String(64), nullable=False),  # of a source's signals; empty of an agent
    Column("bin", Integer, nullable=False),
    Column("outcomes", Integer, nullable=False),
    Column("said", FiniteFloat, nullable=False),
    Column("came", Integer, nullable=False),
    Column("squares", FiniteFloat, nullable=False),
    PrimaryKeyConstraint("kind", "name", "type", "bin"),
    CheckConstraint("kind IN ('agent', 'source')", name="kind_known"),
    CheckConstraint("came >= 0 AND came <= outcomes", name="came_counted"),
    between("bin", "0", "9"),
)
