"""Tables shared by all processes: heartbeats, leases, market copies, events, idempotency keys."""

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
    # Milliseconds of the database's clock: the clocks of the processes differ.
    Column("seen_ms", BigInteger, nullable=False, autoincrement=False),
    # Profile of the process; NULL where it states none.
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
    # Raised by every acquisition and never lowered: it identifies writes of an earlier holder.
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

# Requests of followers to the leader to read the contract list again.
sync_requests = Table(
    "sync_requests",
    metadata,
    Column("request_id", String(64), nullable=False),
    Column("requested_ms", BigInteger, nullable=False, autoincrement=False),
    # NULL until the leader has answered.
    Column("done_ms", BigInteger, autoincrement=False),
    Column("error", String(64)),
    Column("detail", String(500)),
    PrimaryKeyConstraint("request_id"),
)


STREAM_ID: Final = "main"  # the one stream of events

# One row: its lock orders the numbers of events by commit.
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


# Packed inputs and output of each decision, for its replay.
decision_inputs = Table(
    "decision_inputs",
    metadata,
    Column("kind", String(16), nullable=False),
    Column("decision_id", String(64), nullable=False),
    Column("algorithm", Integer, nullable=False),
    Column("code_version", String(64), nullable=False),
    Column("decided_at", UtcInstant, nullable=False),
    Column("document", LargeBinary, nullable=False),
    PrimaryKeyConstraint("kind", "decision_id"),
    Index("ix_decision_inputs_decided_at", "decided_at"),
)


service_facts = Table(
    "service_facts",
    metadata,
    Column("key", String(64), nullable=False),
    Column("value", JsonText, nullable=False),
    PrimaryKeyConstraint("key"),
)
