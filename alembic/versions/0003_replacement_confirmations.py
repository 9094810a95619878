"""Replacement confirmations: a swap must be found better several times in a row.

Revision ID: 0003
Revises: 0001
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
TABLE = "replacement_confirmations"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("portfolio_id", sa.String(36), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("candidate", sa.String(64), nullable=False),
        sa.Column("confirmations", sa.Integer, nullable=False),
        sa.Column("input_hash", sa.String(128), nullable=False),
        sa.Column("is_confirmed", sa.Boolean, nullable=False),
        sa.Column("counted_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("portfolio_id", "symbol", name=f"pk_{TABLE}"),
        sa.ForeignKeyConstraint(
            ["portfolio_id"], ["portfolio.id"], name=f"fk_{TABLE}_portfolio_id"
        ),
        sa.CheckConstraint("confirmations >= 1", name=op.f(f"ck_{TABLE}_confirmations_positive")),
    )


def downgrade() -> None:
    op.drop_table(TABLE)
