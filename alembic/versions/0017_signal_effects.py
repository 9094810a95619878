"""What became of approved signals; they can be proposed.

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
EFFECTS = "signal_effects"
PROPOSALS = "proposals"
FORMER = "proposals_former"
OPEN = "state = 'open'"
APPROVED = "state = 'approved'"
BEFORE = "kind IN ('rebalance', 'replacement')"
AFTER = "kind IN ('rebalance', 'replacement', 'signal')"


def upgrade() -> None:
    _kinds(AFTER)
    op.create_index(
        "ix_signals_approved",
        "signals",
        ["expires_at", "signal_id"],
        unique=False,
        sqlite_where=sa.text(APPROVED),
        postgresql_where=sa.text(APPROVED),
    )
    op.create_table(
        EFFECTS,
        sa.Column("signal_id", sa.String(36), nullable=False),
        sa.Column("policy", sa.String(16), nullable=False),
        sa.Column("move", sa.String(16)),
        sa.Column("symbol", sa.String(64)),
        sa.Column("old_symbol", sa.String(64)),
        sa.Column("note", sa.Text()),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("proposal_id", sa.String(64)),
        sa.Column("version", sa.Integer()),
        sa.PrimaryKeyConstraint("signal_id", name=f"pk_{EFFECTS}"),
        sa.ForeignKeyConstraint(
            ["signal_id"], ["signals.signal_id"], name=f"fk_{EFFECTS}_signal_id"
        ),
        sa.CheckConstraint(
            "policy IN ('observe', 'propose', 'auto')", name=op.f(f"ck_{EFFECTS}_policy_known")
        ),
        sa.CheckConstraint(
            "(move IS NULL) = (symbol IS NULL) AND (move IS NULL OR move IN ('add', 'remove',"
            " 'replace'))",
            name=op.f(f"ck_{EFFECTS}_move_known"),
        ),
    )


def downgrade() -> None:
    op.drop_table(EFFECTS)
    op.drop_index("ix_signals_approved", table_name="signals")
    op.execute(sa.text("DELETE FROM proposals WHERE kind = 'signal'"))
    _kinds(BEFORE)


def _kinds(known: str) -> None:
    """The table with another check of its kinds; SQLite has to make it anew."""
    name = op.f(f"ck_{PROPOSALS}_kind_known")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(name, PROPOSALS, type_="check")
        op.create_check_constraint(name, PROPOSALS, known)
        return
    for index in ("uq_proposals_open", "ix_proposals_opened_at"):
        op.drop_index(index, table_name=PROPOSALS)
    op.rename_table(PROPOSALS, FORMER)
    op.create_table(
        PROPOSALS,
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
        sa.PrimaryKeyConstraint("proposal_id", name=f"pk_{PROPOSALS}"),
        sa.CheckConstraint(known, name=name),
        sa.CheckConstraint(
            "state IN ('open', 'approved', 'declined', 'expired', 'superseded')",
            name=op.f(f"ck_{PROPOSALS}_state_known"),
        ),
        sa.CheckConstraint(
            f"({OPEN}) = (decided_at IS NULL)", name=op.f(f"ck_{PROPOSALS}_decided_at_known")
        ),
    )
    op.execute(sa.text("INSERT INTO proposals SELECT * FROM proposals_former"))
    op.drop_table(FORMER)
    op.create_index(
        "uq_proposals_open",
        PROPOSALS,
        ["portfolio_id", "kind", "subject"],
        unique=True,
        sqlite_where=sa.text(OPEN),
    )
    op.create_index("ix_proposals_opened_at", PROPOSALS, ["opened_at", "proposal_id"], unique=False)
