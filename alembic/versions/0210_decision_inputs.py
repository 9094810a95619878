"""Table of the inputs of decisions, for their replay.

Revision ID: 0210
Revises: 0209
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0210"
down_revision = "0209"
branch_labels = None
depends_on = None

_TIME = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "decision_inputs",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("decision_id", sa.String(64), nullable=False),
        sa.Column("algorithm", sa.Integer, nullable=False),
        sa.Column("code_version", sa.String(64), nullable=False),
        sa.Column("decided_at", _TIME, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("kind", "decision_id", name=op.f("pk_decision_inputs")),
    )
    op.create_index(
        op.f("ix_decision_inputs_decided_at"), "decision_inputs", ["decided_at"], unique=False
    )


def downgrade() -> None:
    op.drop_table("decision_inputs")
