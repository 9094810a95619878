"""Tables of what is told to others: every committed event, by number."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    PrimaryKeyConstraint,
    String,
    Table,
)

from app.foundation.sql.metadata import metadata
from app.foundation.sql.types import JsonText, UtcInstant

STREAM_ID: Final = "main"  # the one stream of events

# One row: whoever holds its lock gives the next numbers, so they follow the order of commits.
event_head = Table(
    "event_head",
    metadata,
    Column("id", String(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
    PrimaryKeyConstraint("id"),
    CheckConstraint("seq >= 0", name="seq_range"),
)

events = Table(
    "events",
    metadata,
    Column("seq", BigInteger, nullable=False, autoincrement=False),
    Column("topic", String(32), nullable=False),
    Column("type", String(64), nullable=False),
    Column("subject", String(64)),
    Column("data", JsonText, nullable=False),
    Column("occurred_at", UtcInstant, nullable=False),
    PrimaryKeyConstraint("seq"),
    CheckConstraint("seq >= 1", name="seq_positive"),
    Index("ix_events_occurred_at", "occurred_at"),
)
