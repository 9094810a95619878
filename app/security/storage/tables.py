"""Tables of security: keys, users, sessions and tickets as hashes, events, shared limits."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)

from app.foundation.sql.schema import JsonText, UtcInstant, metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(36), nullable=False),
    Column("name", String(40), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("pepper_id", String(16), nullable=False),
    Column("role", String(16)),
    Column("scopes", JsonText, nullable=False),
    Column("sources", JsonText, nullable=False),
    Column("allow", JsonText, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("created_at", UtcInstant, nullable=False),
    Column("expires_at", UtcInstant),
    Column("last_used_at", UtcInstant),
    Column("revoked_at", UtcInstant),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("prefix"),
    CheckConstraint("role IN ('viewer', 'trader', 'operator', 'admin')", name="role_known"),
    CheckConstraint("role IS NOT NULL OR scopes <> '[]'", name="has_permission"),
)

users = Table(
    "users",
    metadata,
    Column("id", String(36), nullable=False),
    Column("name", String(40), nullable=False),
    Column("role", String(16), nullable=False),
    Column("scopes", JsonText, nullable=False),
    Column("password_hash", String(255), nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("created_at", UtcInstant, nullable=False),
    Column("password_changed_at", UtcInstant, nullable=False),
    Column("disabled_at", UtcInstant),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
    CheckConstraint("role IN ('viewer', 'trader', 'operator', 'admin')", name="role_known"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(36), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("pepper_id", String(16), nullable=False),
    Column("user_id", String(36)),
    Column("key_id", String(36)),
    Column("created_at", UtcInstant, nullable=False),
    Column("last_used_at", UtcInstant, nullable=False),
    Column("expires_at", UtcInstant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("hash"),
    ForeignKeyConstraint(["user_id"], ["users.id"]),
    ForeignKeyConstraint(["key_id"], ["api_keys.id"]),
    CheckConstraint("(user_id IS NULL) <> (key_id IS NULL)", name="has_one_owner"),
)

# Unlogged on PostgreSQL: a ticket lives for 30 seconds.
stream_tickets = Table(
    "stream_tickets",
    metadata,
    Column("hash", String(64), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("key_id", String(36)),
    Column("session_id", String(36)),
    Column("address", String(64), nullable=False),
    Column("expires_at", UtcInstant, nullable=False),
    PrimaryKeyConstraint("hash"),
)

security_anchors = Table(
    "security_anchors",
    metadata,
    # Last event of the deleted part of the chain; the newest anchor counts.
    Column("seq", BigInteger, nullable=False, autoincrement=False),
    Column("hash", String(64), nullable=False),
    Column("anchored_at", UtcInstant, nullable=False),
    PrimaryKeyConstraint("seq"),
    CheckConstraint("seq >= 1", name="seq_positive"),
)

security_events = Table(
    "security_events",
    metadata,
    Column("seq", BigInteger, nullable=False, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("principal", String(128), nullable=False),
    Column("address", String(64)),
    Column("code", String(64)),
    Column("subject", String(128)),
    Column("count", Integer, nullable=False),
    Column("payload", JsonText, nullable=False),
    Column("request_id", String(128)),
    Column("occurred_at", UtcInstant, nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    PrimaryKeyConstraint("seq"),
    CheckConstraint("seq >= 1", name="seq_positive"),
    CheckConstraint("count >= 1", name="count_positive"),
    Index("ix_security_events_occurred_at", "occurred_at", "seq"),
)

# Unlogged on PostgreSQL: counts of the last minute need not survive a crash of the database.
rate_limit_windows = Table(
    "rate_limit_windows",
    metadata,
    Column("key", String(200), nullable=False),
    Column("window_s", BigInteger, nullable=False),
    Column("window_number", BigInteger, nullable=False),
    Column("current_count", BigInteger, nullable=False),
    Column("previous_count", BigInteger, nullable=False),
    PrimaryKeyConstraint("key"),
)
