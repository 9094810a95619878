"""A contract code is unique among what is listed: a later listing under it is another contract.

Revision ID: 0019
Revises: 0018
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
TABLE = "symbols"
LISTED = "vanished_at IS NULL"
# Where every code is unique, a listing that came before another one has its id behind its code;
# codes of the exchange have no hyphen.
SET_ASIDE = f"""
UPDATE {TABLE} SET code = code || '-' || substr(id, 1, 8)
WHERE EXISTS (
    SELECT 1 FROM {TABLE} AS other WHERE other.code = {TABLE}.code AND (
        other.first_seen > {TABLE}.first_seen
        OR (other.first_seen = {TABLE}.first_seen AND other.id > {TABLE}.id)
    )
)
"""  # noqa: S608  # names of ours
TAKEN_BACK = f"""
UPDATE {TABLE} SET code = substr(code, 1, length(code) - 9) WHERE code LIKE '%-________'
"""  # noqa: S608  # names of ours


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _made_again()
    else:
        op.drop_constraint("uq_symbols_code", TABLE, type_="unique")
    op.execute(TAKEN_BACK)
    op.create_index(
        "uq_symbols_code_current",
        TABLE,
        ["code"],
        unique=True,
        sqlite_where=sa.text(LISTED),
        postgresql_where=sa.text(LISTED),
    )


def downgrade() -> None:
    op.drop_index("uq_symbols_code_current", table_name=TABLE)
    op.execute(SET_ASIDE)
    if op.get_bind().dialect.name == "sqlite":
        _made_again(sa.UniqueConstraint("code", name="uq_symbols_code"))
    else:
        op.create_unique_constraint("uq_symbols_code", TABLE, ["code"])


def _made_again(*constraints: sa.UniqueConstraint) -> None:
    """The table with other constraints: SQLite cannot change those of one that is there.

    Without a change of names on the way, which SQLite would write into the tables that refer to it.
    """
    op.execute(f"CREATE TEMPORARY TABLE kept AS SELECT * FROM {TABLE}")  # noqa: S608  # ours
    op.drop_table(TABLE)
    op.create_table(
        TABLE,
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("base", sa.String(64), nullable=False),
        sa.Column("quote", sa.String(16), nullable=False),
        sa.Column("settle", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("listed_ms", sa.BigInteger()),
        sa.Column("expires_ms", sa.BigInteger()),
        sa.Column("market_stage", sa.String(32)),
        sa.Column("market_type", sa.String(32)),
        sa.Column("sector", sa.String(64), nullable=False),
        sa.Column("cap_category", sa.String(32), nullable=False),
        sa.Column("first_seen", INSTANT, nullable=False),
        sa.Column("last_seen", INSTANT, nullable=False),
        sa.Column("vanished_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_symbols"),
        *constraints,
    )
    op.execute(f"INSERT INTO {TABLE} SELECT * FROM kept")  # noqa: S608  # names of ours
    op.execute("DROP TABLE kept")
    op.create_index(
        "uq_symbols_symbol_current",
        TABLE,
        ["symbol"],
        unique=True,
        sqlite_where=sa.text(LISTED),
    )
