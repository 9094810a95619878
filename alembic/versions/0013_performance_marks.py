"""Marks of the portfolio: what it was worth in each slot of the schedule.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
TABLE = "performance_marks"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("slot", INSTANT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("mark", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("slot", name=op.f(f"pk_{TABLE}")),
        sa.CheckConstraint("version >= 1", name=op.f(f"ck_{TABLE}_version_positive")),
    )


def downgrade() -> None:
    op.drop_table(TABLE)
