"""Table of the evidence of scores, live and from backtests.

Revision ID: 0211
Revises: 0210
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0211"
down_revision = "0210"
branch_labels = None
depends_on = None

_TIME = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
_CHECKS = {
    "source_known": "source IN ('live', 'backtest')",
    "level_known": "level IN ('composite', 'family', 'factor')",
    "label_known": "label IN ('proven', 'weak', 'unproven', 'harmful')",
    "period_order": "first_day <= last_day",
    "ic_error_positive": "ic_error >= 0",
    "horizon_range": "horizon >= 1 AND horizon <= 1000",
    "trials_range": "trials >= 0 AND trials <= 1000000000",
    "days_range": "days >= 0 AND days <= 100000",
    "ic_range": "ic >= -1 AND ic <= 1",
    "turnover_range": "turnover >= 0 AND turnover <= 1",
    "coverage_range": "coverage >= 0 AND coverage <= 1",
}


def upgrade() -> None:
    op.create_table(
        "factor_evidence",
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("algorithm", sa.String(64), nullable=False),
        sa.Column("algorithm_version", sa.Integer, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("horizon", sa.Integer, nullable=False),
        sa.Column("first_day", sa.String(10), nullable=False),
        sa.Column("last_day", sa.String(10), nullable=False),
        sa.Column("measured_at", _TIME, nullable=False),
        sa.Column("as_of", _TIME),
        sa.Column("data_source", sa.Text, nullable=False),
        sa.Column("data_hash", sa.String(64), nullable=False),
        sa.Column("trials", sa.Integer, nullable=False),
        sa.Column("board_days", sa.Integer, nullable=False),
        sa.Column("versions", sa.Text, nullable=False),
        sa.Column("days", sa.Integer, nullable=False),
        sa.Column("ic", sa.Double),
        sa.Column("ic_error", sa.Double),
        sa.Column("ic_t", sa.Double),
        sa.Column("spread", sa.Double),
        sa.Column("spread_t", sa.Double),
        sa.Column("turnover", sa.Double),
        sa.Column("coverage", sa.Double),
        sa.Column("decay", sa.Text, nullable=False),
        sa.Column("label", sa.String(16)),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint(
            "source", "algorithm", "algorithm_version", "level", "name", "horizon", "first_day",
            "last_day", name=op.f("pk_factor_evidence"),
        ),
        *(
            sa.CheckConstraint(condition, name=op.f(f"ck_factor_evidence_{name}"))
            for name, condition in _CHECKS.items()
        ),
    )  # fmt: skip
    op.create_index(
        "ix_factor_evidence_source_measured_at", "factor_evidence", ["source", "measured_at"]
    )


def downgrade() -> None:
    op.drop_table("factor_evidence")
