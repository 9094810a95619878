"""Tables of processes that share one database: who is alive, who has the feed, what it sees."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
)

from app.foundation.sql.schema import JsonText, UtcInstant, metadata

job_executors = Table(
    "job_executors",
    metadata,
    Column("executor_id", String(128), nullable=False),
    # Milliseconds of the database's clock: those of the processes differ.
    Column("seen_ms", BigInteger, nullable=False, autoincrement=False),
    # What it runs with; None of one that does not say.
    Column("role", String(16)),
    Column("version", String(64)),
    Column("settings_hash", String(64)),
    PrimaryKeyConstraint("executor_id"),
    CheckConstraint("seen_ms > 0", name="seen_ms_positive"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(32), nullable=False),
    Column("holder", String(128), nullable=False),
    # Raised by every acquisition and never lowered: what an earlier holder writes is known by it.
    Column("epoch", BigInteger, nullable=False, autoincrement=False),
    Column("expires_ms", BigInteger, nullable=False, autoincrement=False),
    PrimaryKeyConstraint("name"),
    CheckConstraint("epoch >= 0", name="epoch_not_negative"),
)

shared_markets = Table(
    "shared_markets",
    metadata,
    Column("name", String(32), nullable=False),
    Column("epoch", BigInteger, nullable=False, autoincrement=False),
    Column("version", BigInteger, nullable=False, autoincrement=False),
    Column("stamped_ms", BigInteger, nullable=False, autoincrement=False),
    Column("payload", LargeBinary, nullable=False),
    PrimaryKeyConstraint("name"),
)

# Its names in the database stay: processes of an older version read it while newer ones start.
sync_requests = Table(
    "feed_wishes",
    metadata,
    Column("wish_id", String(64), nullable=False, key="request_id"),
    Column("asked_ms", BigInteger, nullable=False, autoincrement=False),
    # None while nobody has answered it.
    Column("done_ms", BigInteger, autoincrement=False),
    Column("error", String(64)),
    Column("detail", String(500)),
    PrimaryKeyConstraint("request_id"),
)


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


idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("principal", String(128), nullable=False),
    Column("key", String(255), nullable=False),
    Column("route", String(255), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("locked_until", UtcInstant, nullable=False),
    Column("status", Integer),
    Column("headers", JsonText),
    Column("body", LargeBinary),
    Column("created_at", UtcInstant, nullable=False),
    PrimaryKeyConstraint("principal", "key"),
    CheckConstraint("state IN ('running', 'done')", name="state_known"),
    CheckConstraint("(state = 'done') = (status IS NOT NULL)", name="answer_known"),
    Index("ix_idempotency_keys_created_at", "created_at"),
)


service_facts = Table(
    "service_facts",
    metadata,
    Column("key", String(64), nullable=False),
    Column("value", JsonText, nullable=False),
    PrimaryKeyConstraint("key"),
)
