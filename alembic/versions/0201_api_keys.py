"""Table of API keys.

Revision ID: 0201
Revises: 0200
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0201"
down_revision = "0200"
branch_labels = None
depends_on = None

_TIME = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("pepper_id", sa.String(16), nullable=False),
        sa.Column("role", sa.String(16)),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("sources", sa.Text, nullable=False),
        sa.Column("allow", sa.Text, nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("last_used_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
        sa.CheckConstraint(
            "role IN ('viewer', 'trader', 'operator', 'admin')", name=op.f("ck_api_keys_role_known")
        ),
        sa.CheckConstraint(
            "role IS NOT NULL OR scopes <> '[]'", name=op.f("ck_api_keys_has_permission")
        ),
    )


def downgrade() -> None:
    op.drop_table("api_keys")
