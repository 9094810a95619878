"""Trades: realised results, one row per trade id.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
EXACT = sa.String(48).with_variant(sa.Numeric(38, 18), "postgresql")
TABLE = "trades"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("trade_id", sa.String(128), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("symbol_id", sa.String(36), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("contract", sa.String(64), nullable=False),
        sa.Column("currency", sa.String(16), nullable=False),
        sa.Column("pnl", EXACT, nullable=False),
        sa.Column("fees", EXACT, nullable=False),
        sa.Column("funding", EXACT, nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("booked_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("trade_id", name="pk_trades"),
        sa.UniqueConstraint("event_seq", name="uq_trades_event_seq"),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name="fk_trades_symbol_id"),
        sa.CheckConstraint("event_seq >= 1", name=op.f("ck_trades_event_seq_positive")),
        *(_exact(column) for column in ("pnl", "fees", "funding")),
    )
    op.create_index("ix_trades_occurred_at", TABLE, ["occurred_at", "event_seq"], unique=False)
    op.create_index("ix_trades_symbol_id", TABLE, ["symbol_id", "event_seq"], unique=False)
    _refuse_changes()


def downgrade() -> None:
    op.drop_table(TABLE)
    if not _on_sqlite():
        op.execute(f"DROP FUNCTION {TABLE}_refuse()")


def _on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _exact(column: str) -> sa.CheckConstraint:
    """Of either sign; text on SQLite."""
    text = (
        f"{column} IS NULL OR ({column} GLOB '*[0-9]*'"
        f" AND ltrim({column}, '-') NOT GLOB '*[^0-9.]*')"
    )
    number = f"{column} > -100000000000000000000 AND {column} < 100000000000000000000"
    return sa.CheckConstraint(
        text if _on_sqlite() else number, name=op.f(f"ck_{TABLE}_{column}_exact")
    )


def _refuse_changes() -> None:
    """Rows can be added, never changed or removed."""
    if _on_sqlite():
        for verb in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {TABLE}_no_{verb} BEFORE {verb.upper()} ON {TABLE}\n"
                f"BEGIN SELECT RAISE(ABORT, '{TABLE}_append_only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {TABLE}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN\n"
        "  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',\n"
        f"    MESSAGE = '{TABLE}_append_only', CONSTRAINT = '{TABLE}_append_only';\n"
        "END $$"
    )
    for verb, level in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER {TABLE}_no_{verb} BEFORE {verb.upper()} ON {TABLE}\n"
            f"FOR EACH {level} EXECUTE FUNCTION {TABLE}_refuse()"
        )
