"""The table of proposals: one open at a time for each thing that may be done."""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

from app.foundation.sql.metadata import metadata
from app.foundation.sql.types import JsonText, UtcInstant

_OPEN: Final = "state = 'open'"

proposals = Table(
    "proposals",
    metadata,
    Column("proposal_id", String(64), nullable=False),
    Column("portfolio_id", String(36), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("action", JsonText, nullable=False),
    Column("opened_at", UtcInstant, nullable=False),
    Column("expires_at", UtcInstant, nullable=False),
    Column("run_id", String(64)),
    Column("decided_at", UtcInstant),
    Column("decided_by", String(128)),
    Column("decision_reason", Text),
    Column("decision_run_id", String(64)),
    Column("decision_version", Integer),
    PrimaryKeyConstraint("proposal_id"),
    CheckConstraint("kind IN ('rebalance', 'replacement', 'signal')", name="kind_known"),
    CheckConstraint(
        "state IN ('open', 'approved', 'declined', 'expired', 'superseded')", name="state_known"
    ),
    CheckConstraint(f"({_OPEN}) = (decided_at IS NULL)", name="decided_at_known"),
    Index(
        "uq_proposals_open",
        "portfolio_id",
        "kind",
        "subject",
        unique=True,
        sqlite_where=text(_OPEN),
        postgresql_where=text(_OPEN),
    ),
    Index("ix_proposals_opened_at", "opened_at", "proposal_id"),
)
