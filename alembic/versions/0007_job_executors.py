"""Job executors: the processes that share the database, and when each was heard of.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLE = "job_executors"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("executor_id", sa.String(128), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("executor_id", name="pk_job_executors"),
        sa.CheckConstraint("seen_ms > 0", name=op.f("ck_job_executors_seen_ms_positive")),
    )


def downgrade() -> None:
    op.drop_table(TABLE)
