"""Signals and the votes on them; what waits in the first is the queue of the judges.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
SIGNALS = "signals"
VOTES = "signal_votes"
WAITS = "state IN ('received', 'validated', 'evaluating')"


def within_one(table: str, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(
        f"{column} >= 0 AND {column} <= 1", name=op.f(f"ck_{table}_{column}_range")
    )


def upgrade() -> None:
    op.create_table(
        SIGNALS,
        sa.Column("signal_id", sa.String(36), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("source_id", sa.String(255)),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("symbol", sa.String(64)),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("strength", sa.Double(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("data", sa.Text()),
        sa.Column("said_at", INSTANT),
        sa.Column("claimed_end", INSTANT),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("settled_at", INSTANT),
        sa.Column("reason", sa.Text()),
        sa.Column("evaluation", sa.String(16)),
        sa.Column("score", sa.Double()),
        sa.Column("approvals", sa.Double()),
        sa.Column("voted", sa.Double()),
        sa.Column("verdict_reason", sa.Text()),
        sa.Column("by_skill", sa.Boolean()),
        sa.Column("board_id", sa.String(36)),
        sa.Column("configuration_version", sa.Integer()),
        sa.PrimaryKeyConstraint("signal_id", name=f"pk_{SIGNALS}"),
        sa.UniqueConstraint("source", "source_id", name=f"uq_{SIGNALS}_source_source_id"),
        sa.CheckConstraint(
            "state IN ('received', 'validated', 'evaluating', 'approved', 'applied', 'rejected',"
            " 'expired', 'failed')",
            name=op.f(f"ck_{SIGNALS}_state_known"),
        ),
        sa.CheckConstraint(
            "direction IN ('BUY', 'SELL', 'NEUTRAL')", name=op.f(f"ck_{SIGNALS}_direction_known")
        ),
        sa.CheckConstraint(
            f"({WAITS}) = (settled_at IS NULL)", name=op.f(f"ck_{SIGNALS}_settled_at_known")
        ),
        within_one(SIGNALS, "strength"),
        within_one(SIGNALS, "confidence"),
        within_one(SIGNALS, "score"),
    )
    op.create_index(
        f"ix_{SIGNALS}_waiting",
        SIGNALS,
        ["received_at", "signal_id"],
        unique=False,
        sqlite_where=sa.text(WAITS),
        postgresql_where=sa.text(WAITS),
    )
    op.create_index(f"ix_{SIGNALS}_settled_at", SIGNALS, ["settled_at", "signal_id"], unique=False)
    op.create_table(
        VOTES,
        sa.Column("signal_id", sa.String(36), nullable=False),
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("probability", sa.Double()),
        sa.Column("recommendation", sa.String(16)),
        sa.Column("confidence", sa.Double()),
        sa.Column("figures", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("is_veto", sa.Boolean(), nullable=False),
        sa.Column("is_dissent", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("signal_id", "agent", name=f"pk_{VOTES}"),
        sa.ForeignKeyConstraint(
            ["signal_id"], [f"{SIGNALS}.signal_id"], name=f"fk_{VOTES}_signal_id"
        ),
        within_one(VOTES, "probability"),
        within_one(VOTES, "weight"),
    )


def downgrade() -> None:
    op.drop_table(VOTES)
    op.drop_table(SIGNALS)
