"""Tables of alerts, notification channels and notifications."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy import text as sql

from app.foundation.sql.schema import HUGE, FiniteFloat, JsonText, UtcInstant, between, metadata
from app.security.storage.sealed_columns import SealedColumns

_LIVE: Final = "state <> 'resolved'"

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(36), nullable=False),
    Column("rule", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("symbols", JsonText, nullable=False),
    Column("severity", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("value", FiniteFloat),
    Column("limit_value", FiniteFloat),
    Column("message", Text, nullable=False),
    Column("since", UtcInstant, nullable=False),
    Column("last_seen_at", UtcInstant, nullable=False),
    Column("opened_at", UtcInstant),
    Column("acknowledged_at", UtcInstant),
    Column("acknowledged_by", String(128)),
    Column("snoozed_until", UtcInstant),
    Column("snoozed_by", String(128)),
    Column("resolved_at", UtcInstant),
    Column("resolution", String(16)),
    Column("resolved_by", String(128)),
    PrimaryKeyConstraint("id"),
    CheckConstraint(
        "state IN ('pending', 'open', 'acknowledged', 'snoozed', 'resolved')", name="state_known"
    ),
    CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity_known"),
    CheckConstraint("(state = 'pending') = (opened_at IS NULL)", name="opened_at_known"),
    CheckConstraint(
        "(state = 'resolved') = (resolved_at IS NOT NULL AND resolution IS NOT NULL)",
        name="resolved_at_known",
    ),
    between("value", f"-{HUGE}", HUGE),
    between("limit_value", f"-{HUGE}", HUGE),
    Index("ix_alerts_resolved_at", "resolved_at", "id"),
)
Index(
    "uq_alerts_rule_subject_live",
    alerts.c.rule,
    alerts.c.subject,
    unique=True,
    sqlite_where=sql(_LIVE),
    postgresql_where=sql(_LIVE),
)


NOTIFIED: Final = "notified"  # row of event_head with the last event turned into notifications

notification_channels = Table(
    "notification_channels",
    metadata,
    Column("id", String(36), nullable=False),
    Column("name", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text),
    Column("kinds", JsonText, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", UtcInstant, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("name"),
    CheckConstraint("kind IN ('apprise', 'webhook')", name="kind_known"),
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), nullable=False, autoincrement=True),
    Column("channel_id", String(36), nullable=False),
    Column("event_seq", BigInteger),
    Column("kind", String(16), nullable=False),
    Column("is_critical", Boolean, nullable=False),
    Column("key", String(255), nullable=False),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("event", JsonText, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", UtcInstant, nullable=False),
    Column("next_attempt_at", UtcInstant),
    Column("claimed_until", UtcInstant),
    Column("delivered_at", UtcInstant),
    Column("error", String(255)),
    Column("priority", String(16)),  # NULL: written by a version without priorities
    PrimaryKeyConstraint("id"),
    UniqueConstraint("channel_id", "event_seq"),
    CheckConstraint("kind IN ('error', 'trade', 'status')", name="kind_known"),
    CheckConstraint(
        "state IN ('pending', 'delivered', 'held', 'digested', 'dead')", name="state_known"
    ),
    CheckConstraint(
        "(state = 'pending') = (next_attempt_at IS NOT NULL)", name="next_attempt_at_known"
    ),
    CheckConstraint(
        "(state = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_at_known"
    ),
    CheckConstraint("attempts >= 0", name="attempts_range"),
    Index("ix_notifications_state", "channel_id", "state", "id"),
)

SEALED_CHANNELS: Final = SealedColumns("channel", notification_channels, ("url", "secret"))
