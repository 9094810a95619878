"""Notifications: channels, and the outbox of each.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
CHANNELS = "notification_channels"
TABLE = "notifications"


def _check(table: str, name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{name}"))


def upgrade() -> None:
    op.create_table(
        CHANNELS,
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text()),
        sa.Column("kinds", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{CHANNELS}"),
        sa.UniqueConstraint("name", name=f"uq_{CHANNELS}_name"),
        _check(CHANNELS, "kind_known", "kind IN ('apprise', 'webhook')"),
    )
    op.create_table(
        TABLE,
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            autoincrement=True,
        ),
        sa.Column("channel_id", sa.String(36), nullable=False),
        sa.Column("event_seq", sa.BigInteger()),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("is_critical", sa.Boolean(), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("next_try_at", INSTANT),
        sa.Column("claimed_until", INSTANT),
        sa.Column("delivered_at", INSTANT),
        sa.Column("error", sa.String(255)),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
        sa.UniqueConstraint("channel_id", "event_seq", name=f"uq_{TABLE}_channel_id_event_seq"),
        _check(TABLE, "kind_known", "kind IN ('error', 'trade', 'status')"),
        _check(
            TABLE,
            "state_known",
            "state IN ('pending', 'delivered', 'held', 'digested', 'dead')",
        ),
        _check(TABLE, "next_try_at_known", "(state = 'pending') = (next_try_at IS NOT NULL)"),
        _check(TABLE, "delivered_at_known", "(state = 'delivered') = (delivered_at IS NOT NULL)"),
        _check(TABLE, "tries_range", "tries >= 0"),
    )
    op.create_index("ix_notifications_state", TABLE, ["channel_id", "state", "id"], unique=False)
    # What happened before there were channels is no news.
    op.execute(
        "INSERT INTO event_head (id, seq) SELECT 'notified', seq FROM event_head WHERE id = 'main'"
    )


def downgrade() -> None:
    op.execute("DELETE FROM event_head WHERE id = 'notified'")
    op.drop_table(TABLE)
    op.drop_table(CHANNELS)
