"""What universes looked like by day, and which runs of a small one were measured by it.

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

DAYS = "scoring_moments"
RUNS = "scoring_run_moments"


def upgrade() -> None:
    op.create_table(
        DAYS,
        sa.Column("algorithm", sa.String(64), nullable=False),
        sa.Column("algorithm_version", sa.Integer(), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("moments", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("algorithm", "algorithm_version", "day", name=f"pk_{DAYS}"),
    )
    op.create_table(
        RUNS,
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("moments", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name=f"pk_{RUNS}"),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["scoring_runs.run_id"],
            name=f"fk_{RUNS}_run_id",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    op.drop_table(RUNS)
    op.drop_table(DAYS)
