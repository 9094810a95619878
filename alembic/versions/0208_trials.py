"""Log of trials, to which rows are only added.

Revision ID: 0208
Revises: 0207
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0208"
down_revision = "0207"
branch_labels = None
depends_on = None

_TIME = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
_SQLITE = tuple(
    f"""\
CREATE TRIGGER trials_no_{verb} BEFORE {verb.upper()} ON trials
BEGIN SELECT RAISE(ABORT, 'trials_append_only'); END"""
    for verb in ("update", "delete")
)
_POSTGRESQL = (
    """\
CREATE FUNCTION trials_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
    MESSAGE = 'trials_append_only', CONSTRAINT = 'trials_append_only';
END $$""",
    *(
        f"""\
CREATE TRIGGER trials_no_{verb} BEFORE {verb.upper()} ON trials
FOR EACH {level} EXECUTE FUNCTION trials_refuse()"""
        for verb, level in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT"))
    ),
)


def upgrade() -> None:
    op.create_table(
        "trials",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("ran_at", _TIME, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("history", sa.Text, nullable=False),
        sa.Column("data_hash", sa.String(64), nullable=False),
        sa.Column("code_version", sa.String(64), nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("sharpe", sa.Double),
        sa.Column("result", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sa.CheckConstraint("kind IN ('backtest')", name=op.f("ck_trials_kind_known")),
    )
    op.create_index("ix_trials_ran_at", "trials", ["ran_at", "id"])
    dialect = op.get_bind().dialect.name
    for statement in _SQLITE if dialect == "sqlite" else _POSTGRESQL:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.drop_table("trials")
    if op.get_bind().dialect.name == "postgresql":
        op.get_bind().exec_driver_sql("DROP FUNCTION trials_refuse()")
