"""One owner of the market feed, what it sees for the others, and what each process runs with.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Heartbeats are written anew every few seconds: nothing in them is worth keeping.
    op.drop_table("job_executors")
    op.create_table(
        "job_executors",
        *_beats(),
        sa.Column("role", sa.String(16)),
        sa.Column("version", sa.String(64)),
        sa.Column("settings_hash", sa.String(64)),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(128), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
        sa.CheckConstraint("epoch >= 0", name=op.f("ck_leases_epoch_not_negative")),
    )
    op.create_table(
        "shared_markets",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("version", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("stamped_ms", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_shared_markets"),
    )
    op.create_table(
        "feed_wishes",
        sa.Column("wish_id", sa.String(64), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("done_ms", sa.BigInteger(), autoincrement=False),
        sa.Column("error", sa.String(64)),
        sa.Column("detail", sa.String(500)),
        sa.PrimaryKeyConstraint("wish_id", name="pk_feed_wishes"),
    )


def downgrade() -> None:
    op.drop_table("feed_wishes")
    op.drop_table("shared_markets")
    op.drop_table("leases")
    op.drop_table("job_executors")
    op.create_table("job_executors", *_beats())


def _beats() -> tuple[sa.schema.SchemaItem, ...]:
    return (
        sa.Column("executor_id", sa.String(128), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("executor_id", name="pk_job_executors"),
        sa.CheckConstraint("seen_ms > 0", name=op.f("ck_job_executors_seen_ms_positive")),
    )
