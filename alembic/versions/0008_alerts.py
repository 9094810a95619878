"""Alerts with their states and their history: one active alert of a rule and subject.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
ALERTS = "alerts"
LIVE = "state <> 'resolved'"
STATES = "state IN ('pending', 'open', 'acknowledged', 'snoozed', 'resolved')"
ENDED = "(state = 'resolved') = (resolved_at IS NOT NULL AND resolution IS NOT NULL)"


def upgrade() -> None:
    op.create_table(
        ALERTS,
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("rule", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("symbols", sa.Text(), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("limit_value", sa.Double()),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("last_seen_at", INSTANT, nullable=False),
        sa.Column("opened_at", INSTANT),
        sa.Column("acknowledged_at", INSTANT),
        sa.Column("acknowledged_by", sa.String(128)),
        sa.Column("snoozed_until", INSTANT),
        sa.Column("snoozed_by", sa.String(128)),
        sa.Column("resolved_at", INSTANT),
        sa.Column("resolution", sa.String(16)),
        sa.Column("resolved_by", sa.String(128)),
        sa.PrimaryKeyConstraint("id", name=f"pk_{ALERTS}"),
        sa.CheckConstraint(STATES, name=op.f(f"ck_{ALERTS}_state_known")),
        sa.CheckConstraint(
            "severity IN ('info', 'warning', 'critical')", name=op.f(f"ck_{ALERTS}_severity_known")
        ),
        sa.CheckConstraint(
            "(state = 'pending') = (opened_at IS NULL)", name=op.f(f"ck_{ALERTS}_opened_at_known")
        ),
        sa.CheckConstraint(ENDED, name=op.f(f"ck_{ALERTS}_resolved_at_known")),
        *(
            sa.CheckConstraint(
                f"{column} >= -1e300 AND {column} <= 1e300",
                name=op.f(f"ck_{ALERTS}_{column}_range"),
            )
            for column in ("value", "limit_value")
        ),
    )
    op.create_index("ix_alerts_resolved_at", ALERTS, ["resolved_at", "id"], unique=False)
    op.create_index(
        "uq_alerts_rule_subject_live",
        ALERTS,
        ["rule", "subject"],
        unique=True,
        sqlite_where=sa.text(LIVE),
        postgresql_where=sa.text(LIVE),
    )


def downgrade() -> None:
    op.drop_table(ALERTS)
