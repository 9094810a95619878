"""Column of notifications with their priority.

Revision ID: 0209
Revises: 0208
"""

import sqlalchemy as sa

from alembic import op

revision = "0209"
down_revision = "0208"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("notifications", sa.Column("priority", sa.String(16)))


def downgrade() -> None:
    op.drop_column("notifications", "priority")
