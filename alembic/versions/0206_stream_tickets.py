"""Table of one-time tickets that open an event stream.

Revision ID: 0206
Revises: 0205
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0206"
down_revision = "0205"
branch_labels = None
depends_on = None

_TIME = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    # Tickets live for 30 seconds and need not survive a crash of the database.
    is_shared = op.get_context().dialect.name == "postgresql"
    op.create_table(
        "stream_tickets",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("key_id", sa.String(36)),
        sa.Column("session_id", sa.String(36)),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_stream_tickets")),
        prefixes=["UNLOGGED"] if is_shared else [],
    )


def downgrade() -> None:
    op.drop_table("stream_tickets")
