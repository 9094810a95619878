"""Sequence of the scoring runs: their order does not depend on clocks.

Revision ID: 0028
Revises: 0022
"""

import sqlalchemy as sa

from alembic import op

revision = "0028"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "scoring_runs", sa.Column("seq", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.execute(
        "UPDATE scoring_runs SET seq = (SELECT count(*) FROM scoring_runs AS other"
        " WHERE other.calculated_at < scoring_runs.calculated_at"
        " OR (other.calculated_at = scoring_runs.calculated_at"
        " AND other.run_id <= scoring_runs.run_id))"
    )
    op.create_index("uq_scoring_runs_seq", "scoring_runs", ["seq"], unique=True)


def downgrade() -> None:
    """Restores the schema; the order of the runs is that of their stamps again."""
    op.drop_index("uq_scoring_runs_seq", "scoring_runs")
    op.drop_column("scoring_runs", "seq")
