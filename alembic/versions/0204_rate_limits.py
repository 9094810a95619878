"""Table of the rate limits that several processes share.

Revision ID: 0204
Revises: 0203
"""

import sqlalchemy as sa

from alembic import op

revision = "0204"
down_revision = "0203"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Counts of the last minute need not survive a crash of the database.
    is_shared = op.get_context().dialect.name == "postgresql"
    op.create_table(
        "rate_limit_windows",
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("window_s", sa.BigInteger, nullable=False),
        sa.Column("window_number", sa.BigInteger, nullable=False),
        sa.Column("current_count", sa.BigInteger, nullable=False),
        sa.Column("previous_count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_limit_windows")),
        prefixes=["UNLOGGED"] if is_shared else [],
    )


def downgrade() -> None:
    op.drop_table("rate_limit_windows")
