"""Events: what was committed, by number, and the head that gives the numbers.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "event_head",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event_head"),
        sa.CheckConstraint("seq >= 0", name=op.f("ck_event_head_seq_range")),
    )
    op.execute("INSERT INTO event_head (id, seq) VALUES ('main', 0)")
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("topic", sa.String(32), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64)),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_events_seq_positive")),
    )
    op.create_index("ix_events_occurred_at", "events", ["occurred_at"], unique=False)


def downgrade() -> None:
    op.drop_table("events")
    op.drop_table("event_head")
