"""Proposals: actions that wait for an operator, one open at a time for each thing.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
TABLE = "proposals"
OPEN = "state = 'open'"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("proposal_id", sa.String(64), nullable=False),
        sa.Column("portfolio_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("opened_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("run_id", sa.String(64)),
        sa.Column("decided_at", INSTANT),
        sa.Column("decided_by", sa.String(128)),
        sa.Column("decision_reason", sa.Text()),
        sa.Column("decision_run_id", sa.String(64)),
        sa.Column("decision_version", sa.Integer()),
        sa.PrimaryKeyConstraint("proposal_id", name=f"pk_{TABLE}"),
        sa.CheckConstraint(
            "kind IN ('rebalance', 'replacement')", name=op.f(f"ck_{TABLE}_kind_known")
        ),
        sa.CheckConstraint(
            "state IN ('open', 'approved', 'declined', 'expired', 'superseded')",
            name=op.f(f"ck_{TABLE}_state_known"),
        ),
        sa.CheckConstraint(
            f"({OPEN}) = (decided_at IS NULL)", name=op.f(f"ck_{TABLE}_decided_at_known")
        ),
    )
    op.create_index(
        "uq_proposals_open",
        TABLE,
        ["portfolio_id", "kind", "subject"],
        unique=True,
        sqlite_where=sa.text(OPEN),
        postgresql_where=sa.text(OPEN),
    )
    op.create_index("ix_proposals_opened_at", TABLE, ["opened_at", "proposal_id"], unique=False)


def downgrade() -> None:
    op.drop_table(TABLE)
