"""Since when a contract is paused: a member leaves after a pause that is too long.

Revision ID: 0025
Revises: 0020
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0025"
down_revision = "0020"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.add_column("symbols", sa.Column("paused_since", INSTANT, nullable=True))
    # A row is written when its status changes, so the pause began no later than this.
    op.execute(
        "UPDATE symbols SET paused_since = last_seen WHERE status IN ('Paused', 'CancelOnly')"
    )


def downgrade() -> None:
    op.drop_column("symbols", "paused_since")
