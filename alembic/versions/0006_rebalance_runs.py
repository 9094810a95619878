"""Rebalance runs and their steps: one active run, one run per tick.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
RUNS = "rebalance_runs"
STEPS = "rebalance_run_steps"
ACTIVE = "state IN ('planned', 'running')"
EFFECTIVE = (
    "scheduled_at IS NOT NULL"
    " AND state IN ('planned', 'running', 'done', 'unchanged', 'observed', 'proposed')"
)
KNOWN = (
    "state IN ('planned', 'running', 'done', 'unchanged', 'observed', 'proposed', 'failed',"
    " 'aborted_stale', 'aborted_killed', 'aborted_expired')"
)


def upgrade() -> None:
    op.create_table(
        RUNS,
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("portfolio_id", sa.String(36), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("method", sa.String(32)),
        sa.Column("scheduled_at", INSTANT),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("key", sa.String(255)),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("requested_at", INSTANT, nullable=False),
        sa.Column("lease_until", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT),
        sa.Column("finished_at", INSTANT),
        sa.Column("version_before", sa.Integer()),
        sa.Column("version_after", sa.Integer()),
        sa.Column("triggers", sa.Text()),
        sa.Column("changes", sa.Text()),
        sa.Column("turnover_u", sa.Integer()),
        sa.Column("cost", sa.Double()),
        sa.Column("details", sa.Text()),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_detail", sa.Text()),
        sa.PrimaryKeyConstraint("run_id", name=f"pk_{RUNS}"),
        sa.CheckConstraint(KNOWN, name=op.f(f"ck_{RUNS}_state_known")),
        sa.CheckConstraint(
            f"({ACTIVE}) = (finished_at IS NULL)", name=op.f(f"ck_{RUNS}_finished_at_known")
        ),
        sa.CheckConstraint(
            "turnover_u >= 0 AND turnover_u <= 200000000",
            name=op.f(f"ck_{RUNS}_turnover_u_range"),
        ),
    )
    _unique("uq_rebalance_runs_active", ["portfolio_id"], ACTIVE)
    _unique("uq_rebalance_runs_tick", ["portfolio_id", "scheduled_at"], EFFECTIVE)
    op.create_index(
        "ix_rebalance_runs_requested_at", RUNS, ["requested_at", "run_id"], unique=False
    )
    op.create_table(
        STEPS,
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("beat", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "position", name=f"pk_{STEPS}"),
        sa.ForeignKeyConstraint(["run_id"], [f"{RUNS}.run_id"], name=f"fk_{STEPS}_run_id"),
        sa.CheckConstraint("position >= 1", name=op.f(f"ck_{STEPS}_position_positive")),
        sa.CheckConstraint(
            "state IN ('done', 'skipped', 'failed')", name=op.f(f"ck_{STEPS}_state_known")
        ),
    )


def downgrade() -> None:
    op.drop_table(STEPS)
    op.drop_table(RUNS)


def _unique(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        name,
        RUNS,
        columns,
        unique=True,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )
