"""What came of signals, and the track records of agents and sources.

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
OUTCOMES = "signal_outcomes"
RECORDS = "signal_records"
OPEN = "booked_at IS NULL"


def upgrade() -> None:
    op.create_table(
        OUTCOMES,
        sa.Column("signal_id", sa.String(36), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("starts_at", INSTANT, nullable=False),
        sa.Column("ends_at", INSTANT, nullable=False),
        sa.Column("booked_at", INSTANT),
        sa.Column("beat", sa.Boolean()),
        sa.Column("gain", sa.Double()),
        sa.Column("median", sa.Double()),
        sa.Column("names", sa.Integer()),
        sa.Column("reason", sa.Text()),
        sa.Column("counts_for_agents", sa.Boolean(), nullable=False),
        sa.Column("counts_for_source", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("signal_id", name=f"pk_{OUTCOMES}"),
        sa.ForeignKeyConstraint(
            ["signal_id"], ["signals.signal_id"], name=f"fk_{OUTCOMES}_signal_id"
        ),
        sa.CheckConstraint("ends_at > starts_at", name=op.f(f"ck_{OUTCOMES}_window")),
        sa.CheckConstraint(
            f"beat IS NULL OR NOT ({OPEN})", name=op.f(f"ck_{OUTCOMES}_beat_booked")
        ),
    )
    op.create_index(
        f"ix_{OUTCOMES}_open",
        OUTCOMES,
        ["ends_at", "starts_at", "signal_id"],
        unique=False,
        sqlite_where=sa.text(OPEN),
        postgresql_where=sa.text(OPEN),
    )
    op.create_index(f"ix_{OUTCOMES}_symbol", OUTCOMES, ["symbol", "ends_at"], unique=False)
    op.create_table(
        RECORDS,
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("bin", sa.Integer(), nullable=False),
        sa.Column("outcomes", sa.Integer(), nullable=False),
        sa.Column("said", sa.Double(), nullable=False),
        sa.Column("came", sa.Integer(), nullable=False),
        sa.Column("squares", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "bin", name=f"pk_{RECORDS}"),
        sa.CheckConstraint("kind IN ('agent', 'source')", name=op.f(f"ck_{RECORDS}_kind_known")),
        sa.CheckConstraint(
            "came >= 0 AND came <= outcomes", name=op.f(f"ck_{RECORDS}_came_counted")
        ),
        sa.CheckConstraint("bin >= 0 AND bin <= 9", name=op.f(f"ck_{RECORDS}_bin_range")),
    )


def downgrade() -> None:
    op.drop_table(RECORDS)
    op.drop_table(OUTCOMES)
