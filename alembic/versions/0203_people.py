"""Tables of users and their sessions, and the callers behind signals and proposals.

Revision ID: 0203
Revises: 0202
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0203"
down_revision = "0202"
branch_labels = None
depends_on = None

_TIME = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("password_changed_at", _TIME, nullable=False),
        sa.Column("disabled_at", _TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
        sa.CheckConstraint(
            "role IN ('viewer', 'trader', 'operator', 'admin')", name=op.f("ck_users_role_known")
        ),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("pepper_id", sa.String(16), nullable=False),
        sa.Column("user_id", sa.String(36)),
        sa.Column("key_id", sa.String(36)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("last_used_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("hash", name=op.f("uq_sessions_hash")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sessions_user_id")),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_sessions_key_id")),
        sa.CheckConstraint(
            "(user_id IS NULL) <> (key_id IS NULL)", name=op.f("ck_sessions_has_one_owner")
        ),
    )
    op.add_column("signals", sa.Column("posted_by", sa.String(128)))
    op.add_column("proposals", sa.Column("proposed_by", sa.String(128)))


def downgrade() -> None:
    op.drop_column("proposals", "proposed_by")
    op.drop_column("signals", "posted_by")
    op.drop_table("sessions")
    op.drop_table("users")
