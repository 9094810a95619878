"""What a closed candle was before the exchange changed it, kept by a trigger.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLE = "candle_revisions"
KEY = ("symbol_id", "interval_min", "opened_ms", "revision")
VALUES = ("open", "high", "low", "close", "volume", "turnover")
COLUMNS = ", ".join((*KEY, *VALUES))
OLD = ", ".join(f"OLD.{name}" for name in (*KEY, *VALUES))
KEEP = f"INSERT INTO {TABLE} ({COLUMNS}) VALUES ({OLD});"  # noqa: S608  # names of ours


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("symbol_id", sa.String(36), nullable=False),
        sa.Column("interval_min", sa.Integer(), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=False) for name in VALUES),
        sa.PrimaryKeyConstraint(*KEY, name=op.f(f"pk_{TABLE}")),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"CREATE TRIGGER candles_revised AFTER UPDATE ON candles\nBEGIN {KEEP} END")
        return
    op.execute(
        "CREATE FUNCTION candles_keep_revision() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        f"BEGIN\n  {KEEP}\n  RETURN NULL;\nEND $$"
    )
    op.execute(
        "CREATE TRIGGER candles_revised AFTER UPDATE ON candles\n"
        "FOR EACH ROW EXECUTE FUNCTION candles_keep_revision()"
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER candles_revised")
    else:
        op.execute("DROP TRIGGER candles_revised ON candles")
        op.execute("DROP FUNCTION candles_keep_revision()")
    op.drop_table(TABLE)
