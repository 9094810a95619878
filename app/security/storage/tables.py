"""Tables of API keys, users and sessions: hashes only, never the secrets themselves."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
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
