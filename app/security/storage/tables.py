"""Tables of security: API keys as hashes under a pepper, and shared rate limits."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
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
