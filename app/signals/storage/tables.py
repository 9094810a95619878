"""Tables of signals, votes, effects, outcomes and forecast records."""

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
    UniqueConstraint,
    false,
    text,
)

from app.foundation.sql.schema import FiniteFloat, JsonText, UtcInstant, between, metadata

_APPROVED: Final = "state = 'approved'"
_WAITS: Final = "state IN ('received', 'validated', 'evaluating')"

signals = Table(
    "signals",
    metadata,
    Column("signal_id", String(36), nullable=False),
    Column("source", String(64), nullable=False),
    Column("source_id", String(255)),
    Column("type", String(64), nullable=False),
    Column("symbol", String(64)),
    Column("direction", String(8), nullable=False),
    Column("strength", FiniteFloat, nullable=False),
    Column("confidence", FiniteFloat, nullable=False),
    Column("data", JsonText),
    Column("claimed_at", UtcInstant),
    Column("claimed_expires_at", UtcInstant),
    Column("received_at", UtcInstant, nullable=False),
    Column("expires_at", UtcInstant, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("completed_at", UtcInstant),
    Column("reason", Text),
    Column("evaluation", String(16)),
    Column("score", FiniteFloat),
    Column("approvals", FiniteFloat),
    Column("voted", FiniteFloat),
    Column("verdict_reason", Text),
    Column("is_skill_weighted", Boolean),
    Column("board_id", String(36)),
    Column("configuration_version", Integer),
    Column("posted_by", String(128)),
    # NULL: stored by a version that did not know it, which counts as true.
    Column("is_propose_only", Boolean),
    PrimaryKeyConstraint("signal_id"),
    UniqueConstraint("source", "source_id"),
    CheckConstraint(
        "state IN ('received', 'validated', 'evaluating', 'approved', 'applied', 'rejected',"
        " 'expired', 'failed')",
        name="state_known",
    ),
    CheckConstraint("direction IN ('BUY', 'SELL', 'NEUTRAL')", name="direction_known"),
    CheckConstraint(f"({_WAITS}) = (completed_at IS NULL)", name="completed_at_known"),
    between("strength", "0", "1"),
    between("confidence", "0", "1"),
    between("score", "0", "1"),
    Index(
        "ix_signals_waiting",
        "received_at",
        "signal_id",
        sqlite_where=text(_WAITS),
        postgresql_where=text(_WAITS),
    ),
    Index("ix_signals_completed_at", "completed_at", "signal_id"),
    Index(
        "ix_signals_approved",
        "expires_at",
        "signal_id",
        sqlite_where=text(_APPROVED),
        postgresql_where=text(_APPROVED),
    ),
)

signal_effects = Table(
    "signal_effects",
    metadata,
    Column("signal_id", String(36), nullable=False),
    Column("automation", String(16), nullable=False),
    Column("move", String(16)),
    Column("symbol", String(64)),
    Column("old_symbol", String(64)),
    Column("note", Text),
    Column("at", UtcInstant, nullable=False),
    Column("proposal_id", String(64)),
    Column("version", Integer),
    PrimaryKeyConstraint("signal_id"),
    ForeignKeyConstraint(["signal_id"], ["signals.signal_id"]),
    CheckConstraint("automation IN ('observe', 'propose', 'auto')", name="automation_known"),
    CheckConstraint(
        "(move IS NULL) = (symbol IS NULL) AND (move IS NULL OR move IN ('add', 'remove',"
        " 'replace'))",
        name="move_known",
    ),
)

signal_votes = Table(
    "signal_votes",
    metadata,
    Column("signal_id", String(36), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("weight", FiniteFloat, nullable=False),
    Column("probability", FiniteFloat),
    Column("recommendation", String(16)),
    Column("confidence", FiniteFloat),
    Column("figures", JsonText, nullable=False),
    Column("reason", Text),
    Column("is_veto", Boolean, nullable=False),
    Column("is_dissent", Boolean, nullable=False),
    Column("is_source", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("signal_id", "agent"),
    ForeignKeyConstraint(["signal_id"], ["signals.signal_id"]),
    between("probability", "0", "1"),
    between("weight", "0", "1"),
)


_OPEN: Final = "booked_at IS NULL"

# Symbol, source and type are repeated here, to find the last counted outcome of each.
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
    Column("outperformed", Boolean),
    Column("gain", FiniteFloat),
    Column("median", FiniteFloat),
    Column("universe_size", Integer),
    Column("reason", Text),
    Column("counts_for_agents", Boolean, nullable=False),
    Column("counts_for_source", Boolean, nullable=False),
    PrimaryKeyConstraint("signal_id"),
    ForeignKeyConstraint(["signal_id"], ["signals.signal_id"]),
    CheckConstraint("ends_at > starts_at", name="window"),
    CheckConstraint(f"outperformed IS NULL OR NOT ({_OPEN})", name="outperformed_booked"),
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

# Sums over forecasts of similar probability; they outlive deleted signals.
signal_records = Table(
    "signal_records",
    metadata,
    Column("kind", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("type", String(64), nullable=False),  # type of a source's signals; empty for an agent
    Column("bin", Integer, nullable=False),
    Column("outcomes", Integer, nullable=False),
    Column("forecast_sum", FiniteFloat, nullable=False),
    Column("occurrences", Integer, nullable=False),
    Column("squared_error_sum", FiniteFloat, nullable=False),
    PrimaryKeyConstraint("kind", "name", "type", "bin"),
    CheckConstraint("kind IN ('agent', 'source')", name="kind_known"),
    CheckConstraint("occurrences >= 0 AND occurrences <= outcomes", name="occurrences_counted"),
    between("bin", "0", "9"),
)
