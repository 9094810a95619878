"""The table of alerts: at most one of a rule and subject that has not ended."""

from typing import Final

from sqlalchemy import CheckConstraint, Column, Index, PrimaryKeyConstraint, String, Table, Text
from sqlalchemy import text as sql

from app.foundation.sql.metadata import HUGE, between, metadata
from app.foundation.sql.types import FiniteFloat, JsonText, UtcInstant

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
