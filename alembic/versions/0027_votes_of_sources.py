"""Votes of the sources of signals, and their track records by type of signal.

Revision ID: 0027
Revises: 0025
"""

from collections.abc import Sequence

import sqlalchemy as sa

from alembic import op

revision = "0027"
down_revision = "0025"
branch_labels = None
depends_on = None

RECORDS = "signal_records"
KEPT = ("name", "bin", "outcomes", "said", "came", "squares")


def upgrade() -> None:
    op.add_column(
        "signal_votes",
        sa.Column("is_source", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column(
        "signal_outcomes", sa.Column("type", sa.String(64), nullable=False, server_default="")
    )
    op.execute(
        "UPDATE signal_outcomes SET type = (SELECT type FROM signals"
        " WHERE signals.signal_id = signal_outcomes.signal_id)"
    )
    rebuild_records(["type"])
    # CONDITIONAL is no approval any more: nothing is done about such signals from now on.
    op.execute(
        "UPDATE signals SET state = 'rejected'"
        " WHERE state = 'approved' AND evaluation = 'CONDITIONAL'"
        " AND signal_id NOT IN (SELECT signal_id FROM signal_effects)"
    )


def downgrade() -> None:
    """Restores the schema; one way for data.

    Votes and records of sources are lost. The signals that the upgrade rejected stay rejected:
    approved again, they would be acted on long after their verdict.
    """
    rebuild_records([])
    op.drop_column("signal_outcomes", "type")
    op.execute("DELETE FROM signal_votes WHERE is_source")
    op.drop_column("signal_votes", "is_source")


def rebuild_records(more: Sequence[str]) -> None:
    """Another primary key; the records of agents stay.

    Those of sources begin anew: confidence alone, over all types, is not what is recorded now.
    """
    old = sa.table(RECORDS, sa.column("kind"), *map(sa.column, KEPT))
    rows = op.get_bind().execute(sa.select(old).where(old.c.kind == "agent")).mappings().all()
    op.drop_table(RECORDS)
    made = op.create_table(
        RECORDS,
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        *(sa.Column(name, sa.String(64), nullable=False) for name in more),
        sa.Column("bin", sa.Integer(), nullable=False),
        sa.Column("outcomes", sa.Integer(), nullable=False),
        sa.Column("said", sa.Double(), nullable=False),
        sa.Column("came", sa.Integer(), nullable=False),
        sa.Column("squares", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", *more, "bin", name=f"pk_{RECORDS}"),
        sa.CheckConstraint("kind IN ('agent', 'source')", name=op.f(f"ck_{RECORDS}_kind_known")),
        sa.CheckConstraint(
            "came >= 0 AND came <= outcomes", name=op.f(f"ck_{RECORDS}_came_counted")
        ),
        sa.CheckConstraint("bin >= 0 AND bin <= 9", name=op.f(f"ck_{RECORDS}_bin_range")),
    )
    if rows:
        op.bulk_insert(made, [{**row, **dict.fromkeys(more, "")} for row in rows])
