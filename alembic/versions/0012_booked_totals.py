"""What booked results add up to, and an index of the events that move members or weights.

Revision ID: 0012
Revises: 0011
"""

from decimal import Context, Decimal

import sqlalchemy as sa

from alembic import op
from app.foundation.sql.types import ExactDecimal

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TABLE = "booked_totals"
HISTORY = "portfolio_history"
MOVED = "type IN ('ADD', 'REBALANCE', 'REMOVE', 'REPLACE', 'WEIGHTS')"
AMOUNTS = ("pnl", "fees", "funding")
EXACT = Context(prec=76)  # sums lose no digit


def upgrade() -> None:
    op.create_index(
        "ix_portfolio_history_moved",
        HISTORY,
        ["aggregate", "seq"],
        unique=False,
        sqlite_where=sa.text(MOVED),
        postgresql_where=sa.text(MOVED),
    )
    totals = op.create_table(
        TABLE,
        sa.Column("symbol_id", sa.String(36), nullable=False),
        sa.Column("currency", sa.String(16), nullable=False),
        sa.Column("results", sa.BigInteger(), nullable=False),
        *(sa.Column(name, ExactDecimal(), nullable=False) for name in AMOUNTS),
        sa.PrimaryKeyConstraint("symbol_id", "currency", name=f"pk_{TABLE}"),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name=f"fk_{TABLE}_symbol_id"),
        sa.CheckConstraint("results >= 1", name=op.f(f"ck_{TABLE}_results_positive")),
        *(_exact(name) for name in AMOUNTS),
    )
    columns = (sa.column("symbol_id"), sa.column("currency"))
    booked = sa.table("trades", *columns, *(sa.column(name, ExactDecimal()) for name in AMOUNTS))
    sums: dict[tuple[str, str], dict[str, Decimal]] = {}
    counts: dict[tuple[str, str], int] = {}
    # SQLite keeps exact decimals as text, which it cannot add up.
    for row in op.get_bind().execute(sa.select(booked)):
        key = (row.symbol_id, row.currency)
        before = sums.get(key, dict.fromkeys(AMOUNTS, Decimal(0)))
        sums[key] = {name: EXACT.add(before[name], getattr(row, name)) for name in AMOUNTS}
        counts[key] = counts.get(key, 0) + 1
    for (symbol_id, currency), amounts in sums.items():
        row_of = {"symbol_id": symbol_id, "currency": currency, **amounts}
        op.get_bind().execute(totals.insert(), [{**row_of, "results": counts[symbol_id, currency]}])


def downgrade() -> None:
    op.drop_table(TABLE)
    op.drop_index("ix_portfolio_history_moved", table_name=HISTORY)


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


def _on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
