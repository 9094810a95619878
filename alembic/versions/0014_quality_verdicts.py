"""Verdicts on the quality of market data: one row per change.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
TABLE = "quality_verdicts"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("symbol_id", sa.String(36), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("flags", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("symbol_id", "at", name=op.f(f"pk_{TABLE}")),
        sa.CheckConstraint("score >= 0 AND score <= 1", name=op.f(f"ck_{TABLE}_score_range")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f(f"ix_{TABLE}_at"), TABLE, ["at"])


def downgrade() -> None:
    op.drop_table(TABLE)
