"""Chain of security events with its anchors; index of the history by time.

Revision ID: 0202
Revises: 0201
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0202"
down_revision = "0201"
branch_labels = None
depends_on = None

_TIME = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
_SQLITE = (
    """\
CREATE TRIGGER security_anchors_no_update BEFORE UPDATE ON security_anchors
BEGIN SELECT RAISE(ABORT, 'security_anchors_append_only'); END""",
    """\
CREATE TRIGGER security_anchors_no_delete BEFORE DELETE ON security_anchors
BEGIN SELECT RAISE(ABORT, 'security_anchors_append_only'); END""",
    """\
CREATE TRIGGER security_events_no_update BEFORE UPDATE ON security_events
BEGIN SELECT RAISE(ABORT, 'security_events_append_only'); END""",
    """\
CREATE TRIGGER security_events_no_delete BEFORE DELETE ON security_events
WHEN NOT EXISTS (SELECT 1 FROM security_anchors WHERE seq >= OLD.seq)
BEGIN SELECT RAISE(ABORT, 'security_events_append_only'); END""",
)
_POSTGRESQL = (
    """\
CREATE FUNCTION security_anchors_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
    MESSAGE = 'security_anchors_append_only', CONSTRAINT = 'security_anchors_append_only';
END $$""",
    """\
CREATE FUNCTION security_events_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM security_anchors WHERE seq >= OLD.seq) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
    MESSAGE = 'security_events_append_only', CONSTRAINT = 'security_events_append_only';
END $$""",
    *(
        f"""\
CREATE TRIGGER {table}_no_{verb} BEFORE {verb.upper()} ON {table}
FOR EACH {level} EXECUTE FUNCTION {table}_refuse()"""
        for table in ("security_anchors", "security_events")
        for verb, level in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT"))
    ),
)


def upgrade() -> None:
    op.create_table(
        "security_anchors",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("anchored_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_security_anchors")),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_security_anchors_seq_positive")),
    )
    op.create_table(
        "security_events",
        sa.Column("seq", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("principal", sa.String(128), nullable=False),
        sa.Column("address", sa.String(64)),
        sa.Column("code", sa.String(64)),
        sa.Column("subject", sa.String(128)),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("request_id", sa.String(128)),
        sa.Column("occurred_at", _TIME, nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_security_events")),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_security_events_seq_positive")),
        sa.CheckConstraint("count >= 1", name=op.f("ck_security_events_count_positive")),
    )
    op.create_index("ix_security_events_occurred_at", "security_events", ["occurred_at", "seq"])
    op.create_index("ix_portfolio_history_occurred_at", "portfolio_history", ["occurred_at", "seq"])
    dialect = op.get_bind().dialect.name
    for statement in _SQLITE if dialect == "sqlite" else _POSTGRESQL:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    op.drop_index("ix_portfolio_history_occurred_at", "portfolio_history")
    for table in ("security_events", "security_anchors"):
        op.drop_table(table)
        if op.get_bind().dialect.name != "sqlite":
            op.get_bind().exec_driver_sql(f"DROP FUNCTION {table}_refuse()")
