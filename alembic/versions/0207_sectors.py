"""Table of edited classifications of base coins.

Revision ID: 0207
Revises: 0206
"""

import sqlalchemy as sa

from alembic import op
from app.foundation.sql.schema import UtcInstant

revision = "0207"
down_revision = "0206"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sectors",
        sa.Column("base", sa.String(64), nullable=False),
        sa.Column("asset_class", sa.String(16), nullable=False),
        sa.Column("sector", sa.String(64), nullable=False),
        sa.Column("cap_category", sa.String(32), nullable=False),
        sa.Column("changed_at", UtcInstant(), nullable=False),
        sa.Column("changed_by", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("base", name=op.f("pk_sectors")),
    )


def downgrade() -> None:
    op.drop_table("sectors")
