"""Which scoring runs are provisional, and seats that forced exits have left to be filled.

Revision ID: 0022
Revises: 0027
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0022"
down_revision = "0027"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
COVERAGE = "scoring_run_coverage"
VACANCIES = "vacancies"


def upgrade() -> None:
    op.create_table(
        COVERAGE,
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("source_coverage", sa.Text(), nullable=False),
        sa.Column("is_provisional", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=f"pk_{COVERAGE}"),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["scoring_runs.run_id"],
            name=f"fk_{COVERAGE}_run_id",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        VACANCIES,
        sa.Column("portfolio_id", sa.String(36), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("vacated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("portfolio_id", "symbol", name=f"pk_{VACANCIES}"),
        sa.ForeignKeyConstraint(
            ["portfolio_id"], ["portfolio.id"], name=f"fk_{VACANCIES}_portfolio_id"
        ),
    )


def downgrade() -> None:
    op.drop_table(VACANCIES)
    op.drop_table(COVERAGE)
