"""Column of signals whose sender may only propose.

Revision ID: 0205
Revises: 0204
"""

import sqlalchemy as sa

from alembic import op

revision = "0205"
down_revision = "0204"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("signals", sa.Column("is_propose_only", sa.Boolean))


def downgrade() -> None:
    op.drop_column("signals", "is_propose_only")
