"""First tables: market data, scoring, portfolio with history, configuration, kept answers.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
EXACT = sa.String(48).with_variant(sa.Numeric(38, 18), "postgresql")
APPEND_ONLY = ("portfolio_history", "system_configuration")
TABLES = (
    "idempotency_keys",
    "service_facts",
    "portfolio_members",
    "portfolio_history",
    "portfolio",
    "system_configuration",
    "symbol_scores",
    "scoring_runs",
    "scoring_algorithms",
    "funding_rates",
    "market_snapshots",
    "candles",
    "contract_specs",
    "symbols",
)


def upgrade() -> None:
    _market()
    _scoring()
    _portfolio()
    _service()
    for table in APPEND_ONLY:
        _refuse_changes(table)
    # The one portfolio: its row is what every change locks first.
    op.execute(
        "INSERT INTO portfolio (id, version, configuration_version, cash_u)"
        " VALUES ('main', 0, 1, 100000000)"
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    if not _on_sqlite():
        for table in APPEND_ONLY:
            op.execute(f"DROP FUNCTION {table}_refuse()")


def _on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"


def _positive(table: str, column: str) -> sa.CheckConstraint:
    """Above zero; SQLite keeps exact numbers as text, PostgreSQL counts NaN above everything."""
    text = f"{column} GLOB '*[1-9]*' AND {column} NOT GLOB '*[^0-9.]*'"
    number = f"{column} > 0 AND {column} < 100000000000000000000"
    return sa.CheckConstraint(
        text if _on_sqlite() else number, name=op.f(f"ck_{table}_{column}_positive")
    )


def _exact(table: str, column: str) -> sa.CheckConstraint:
    """Of either sign, or none."""
    text = (
        f"{column} IS NULL OR ({column} GLOB '*[0-9]*'"
        f" AND ltrim({column}, '-') NOT GLOB '*[^0-9.]*')"
    )
    number = f"{column} > -100000000000000000000 AND {column} < 100000000000000000000"
    return sa.CheckConstraint(
        text if _on_sqlite() else number, name=op.f(f"ck_{table}_{column}_exact")
    )


def _refuse_changes(table: str) -> None:
    """Rows of `table` can be added, never changed or removed."""
    if _on_sqlite():
        for verb in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb.upper()} ON {table}\n"
                f"BEGIN SELECT RAISE(ABORT, '{table}_append_only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN\n"
        "  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',\n"
        f"    MESSAGE = '{table}_append_only', CONSTRAINT = '{table}_append_only';\n"
        "END $$"
    )
    for verb, level in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb.upper()} ON {table}\n"
            f"FOR EACH {level} EXECUTE FUNCTION {table}_refuse()"
        )


def _market() -> None:
    """Symbols with their specifications, candles, snapshots, funding."""
    op.create_table(
        "symbols",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("base", sa.String(64), nullable=False),
        sa.Column("quote", sa.String(16), nullable=False),
        sa.Column("settle", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("listed_ms", sa.BigInteger(), nullable=True),
        sa.Column("expires_ms", sa.BigInteger(), nullable=True),
        sa.Column("market_stage", sa.String(32), nullable=True),
        sa.Column("market_type", sa.String(32), nullable=True),
        sa.Column("sector", sa.String(64), nullable=False),
        sa.Column("cap_category", sa.String(32), nullable=False),
        sa.Column("first_seen", INSTANT, nullable=False),
        sa.Column("last_seen", INSTANT, nullable=False),
        sa.Column("vanished_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_symbols"),
        sa.UniqueConstraint("code", name="uq_symbols_code"),
    )
    op.create_index(
        "uq_symbols_symbol_current",
        "symbols",
        ["symbol"],
        unique=True,
        sqlite_where=sa.text("vanished_at IS NULL"),
        postgresql_where=sa.text("vanished_at IS NULL"),
    )
    op.create_table(
        "contract_specs",
        sa.Column("symbol_id", sa.String(36), nullable=False),
        sa.Column("valid_from", INSTANT, nullable=False),
        sa.Column("valid_to", INSTANT, nullable=True),
        sa.Column("is_inverse", sa.Boolean(), nullable=False),
        sa.Column("multiplier", EXACT, nullable=False),
        sa.Column("lot_size", sa.Integer(), nullable=False),
        sa.Column("tick_size", EXACT, nullable=False),
        sa.Column("max_order_lots", sa.BigInteger(), nullable=True),
        sa.Column("max_leverage", sa.Integer(), nullable=True),
        sa.Column("initial_margin", EXACT, nullable=True),
        sa.Column("maintenance_margin", EXACT, nullable=True),
        sa.Column("maker_fee", EXACT, nullable=True),
        sa.Column("taker_fee", EXACT, nullable=True),
        sa.Column("funding_interval_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("symbol_id", "valid_from", name="pk_contract_specs"),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name="fk_contract_specs_symbol_id"),
        sa.CheckConstraint(
            "valid_to IS NULL OR valid_to > valid_from", name=op.f("ck_contract_specs_validity")
        ),
        sa.CheckConstraint("lot_size >= 1", name=op.f("ck_contract_specs_lot_size_positive")),
        _positive("contract_specs", "multiplier"),
        _positive("contract_specs", "tick_size"),
        _exact("contract_specs", "initial_margin"),
        _exact("contract_specs", "maintenance_margin"),
        _exact("contract_specs", "maker_fee"),
        _exact("contract_specs", "taker_fee"),
    )
    op.create_index(
        "uq_contract_specs_symbol_id_open",
        "contract_specs",
        ["symbol_id"],
        unique=True,
        sqlite_where=sa.text("valid_to IS NULL"),
        postgresql_where=sa.text("valid_to IS NULL"),
    )
    op.create_table(
        "candles",
        sa.Column("symbol_id", sa.String(36), nullable=False),
        sa.Column("interval_min", sa.Integer(), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("open", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("close", sa.Double(), nullable=False),
        sa.Column("volume", sa.Double(), nullable=False),
        sa.Column("turnover", sa.Double(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("symbol_id", "interval_min", "opened_ms", name="pk_candles"),
        sa.CheckConstraint(
            "low > 0 AND low <= open AND low <= close"
            " AND high >= open AND high >= close AND high < 1e300",
            name=op.f("ck_candles_prices"),
        ),
        sa.CheckConstraint("volume >= 0 AND volume <= 1e300", name=op.f("ck_candles_volume_range")),
        sa.CheckConstraint(
            "turnover >= 0 AND turnover <= 1e300", name=op.f("ck_candles_turnover_range")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "market_snapshots",
        sa.Column("symbol_id", sa.String(36), nullable=False),
        sa.Column("taken_ms", sa.BigInteger(), nullable=False),
        sa.Column("open_interest", sa.Double(), nullable=True),
        sa.Column("mark_price", sa.Double(), nullable=True),
        sa.Column("turnover_24h", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("taken_ms", "symbol_id", name="pk_market_snapshots"),
        sa.CheckConstraint(
            "open_interest >= 0 AND open_interest <= 1e300",
            name=op.f("ck_market_snapshots_open_interest_range"),
        ),
        sa.CheckConstraint(
            "mark_price >= 0 AND mark_price <= 1e300",
            name=op.f("ck_market_snapshots_mark_price_range"),
        ),
        sa.CheckConstraint(
            "turnover_24h >= 0 AND turnover_24h <= 1e300",
            name=op.f("ck_market_snapshots_turnover_24h_range"),
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "funding_rates",
        sa.Column("symbol_id", sa.String(36), nullable=False),
        sa.Column("settled_ms", sa.BigInteger(), nullable=False),
        sa.Column("rate", EXACT, nullable=False),
        sa.Column("interval_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("symbol_id", "settled_ms", name="pk_funding_rates"),
        _exact("funding_rates", "rate"),
        sqlite_with_rowid=False,
    )


def _scoring() -> None:
    """Algorithms, runs, scores."""
    op.create_table(
        "scoring_algorithms",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="pk_scoring_algorithms"),
    )
    op.create_table(
        "scoring_runs",
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("algorithm", sa.String(64), nullable=False),
        sa.Column("algorithm_version", sa.Integer(), nullable=False),
        sa.Column("configuration_version", sa.Integer(), nullable=False),
        sa.Column("as_of", INSTANT, nullable=False),
        sa.Column("calculated_at", INSTANT, nullable=False),
        sa.Column("duration_ms", sa.Double(), nullable=False),
        sa.Column("data_source", sa.String(16), nullable=False),
        sa.Column("input_hash", sa.String(128), nullable=False),
        sa.Column("universe_size", sa.Integer(), nullable=False),
        sa.Column("coverage", sa.Text(), nullable=False),
        sa.Column("excluded", sa.Text(), nullable=False),
        sa.Column("inputs", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", name="pk_scoring_runs"),
        sa.CheckConstraint(
            "universe_size >= 0 AND universe_size <= 1000000",
            name=op.f("ck_scoring_runs_universe_size_range"),
        ),
    )
    op.create_index(
        "ix_scoring_runs_calculated_at", "scoring_runs", ["calculated_at", "run_id"], unique=False
    )
    op.create_table(
        "symbol_scores",
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("calculated_at", INSTANT, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("composite", sa.Double(), nullable=True),
        sa.Column("technical", sa.Double(), nullable=True),
        sa.Column("fundamental", sa.Double(), nullable=True),
        sa.Column("market_structure", sa.Double(), nullable=True),
        sa.Column("risk", sa.Double(), nullable=True),
        sa.Column("z", sa.Double(), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("volatility", sa.Double(), nullable=True),
        sa.Column("supporting", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "symbol", name="pk_symbol_scores"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["scoring_runs.run_id"], name="fk_symbol_scores_run_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("rank >= 1", name=op.f("ck_symbol_scores_rank_positive")),
        sa.CheckConstraint(
            "composite >= 0 AND composite <= 1", name=op.f("ck_symbol_scores_composite_range")
        ),
        sa.CheckConstraint(
            "technical >= 0 AND technical <= 1", name=op.f("ck_symbol_scores_technical_range")
        ),
        sa.CheckConstraint(
            "fundamental >= 0 AND fundamental <= 1", name=op.f("ck_symbol_scores_fundamental_range")
        ),
        sa.CheckConstraint(
            "market_structure >= 0 AND market_structure <= 1",
            name=op.f("ck_symbol_scores_market_structure_range"),
        ),
        sa.CheckConstraint("risk >= 0 AND risk <= 1", name=op.f("ck_symbol_scores_risk_range")),
        sa.CheckConstraint(
            "confidence >= 0 AND confidence <= 1", name=op.f("ck_symbol_scores_confidence_range")
        ),
        sa.CheckConstraint("z >= -1e6 AND z <= 1e6", name=op.f("ck_symbol_scores_z_range")),
        sa.CheckConstraint(
            "volatility >= 0 AND volatility <= 1e300",
            name=op.f("ck_symbol_scores_volatility_range"),
        ),
    )
    op.create_index(
        "ix_symbol_scores_symbol_calculated_at",
        "symbol_scores",
        ["symbol", "calculated_at", "run_id"],
        unique=False,
    )


def _portfolio() -> None:
    """The portfolio, its members, its history, the configuration."""
    op.create_table(
        "portfolio",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("configuration_version", sa.Integer(), nullable=False),
        sa.Column("cash_u", sa.Integer(), nullable=False),
        sa.Column("weighted_at", INSTANT, nullable=True),
        sa.Column("updated_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_portfolio"),
        sa.CheckConstraint("version >= 0", name=op.f("ck_portfolio_version_range")),
        sa.CheckConstraint(
            "cash_u >= 0 AND cash_u <= 100000000", name=op.f("ck_portfolio_cash_u_range")
        ),
    )
    op.create_table(
        "portfolio_members",
        sa.Column("portfolio_id", sa.String(36), nullable=False),
        sa.Column("symbol_id", sa.String(36), nullable=False),
        sa.Column("entered_version", sa.Integer(), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=False),
        sa.Column("contract", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("included_at", INSTANT, nullable=False),
        sa.Column("inclusion_reason", sa.Text(), nullable=False),
        sa.Column("inclusion_price", EXACT, nullable=True),
        sa.Column("inclusion_score", sa.Double(), nullable=True),
        sa.Column("weight_u", sa.Integer(), nullable=False),
        sa.Column("target_weight_u", sa.Integer(), nullable=False),
        sa.Column("left_at", INSTANT, nullable=True),
        sa.Column("leaving_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            "portfolio_id", "symbol_id", "entered_version", name="pk_portfolio_members"
        ),
        sa.ForeignKeyConstraint(
            ["portfolio_id"], ["portfolio.id"], name="fk_portfolio_members_portfolio_id"
        ),
        sa.ForeignKeyConstraint(
            ["symbol_id"], ["symbols.id"], name="fk_portfolio_members_symbol_id"
        ),
        sa.CheckConstraint(
            "status IN ('Active', 'Removed', 'Replaced')",
            name=op.f("ck_portfolio_members_status_known"),
        ),
        sa.CheckConstraint(
            "(status = 'Active') = (left_at IS NULL)",
            name=op.f("ck_portfolio_members_left_at_known"),
        ),
        sa.CheckConstraint("rank >= 1", name=op.f("ck_portfolio_members_rank_positive")),
        sa.CheckConstraint(
            "weight_u >= 0 AND weight_u <= 100000000",
            name=op.f("ck_portfolio_members_weight_u_range"),
        ),
        sa.CheckConstraint(
            "target_weight_u >= 0 AND target_weight_u <= 100000000",
            name=op.f("ck_portfolio_members_target_weight_u_range"),
        ),
        sa.CheckConstraint(
            "inclusion_score >= 0 AND inclusion_score <= 1",
            name=op.f("ck_portfolio_members_inclusion_score_range"),
        ),
        _exact("portfolio_members", "inclusion_price"),
    )
    op.create_index(
        "uq_portfolio_members_rank_active",
        "portfolio_members",
        ["portfolio_id", "rank"],
        unique=True,
        sqlite_where=sa.text("status = 'Active'"),
        postgresql_where=sa.text("status = 'Active'"),
    )
    op.create_index(
        "uq_portfolio_members_symbol_id_active",
        "portfolio_members",
        ["portfolio_id", "symbol_id"],
        unique=True,
        sqlite_where=sa.text("status = 'Active'"),
        postgresql_where=sa.text("status = 'Active'"),
    )
    op.create_table(
        "portfolio_history",
        sa.Column("aggregate", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("symbol", sa.String(64), nullable=True),
        sa.Column("other_symbol", sa.String(64), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("configuration_version", sa.Integer(), nullable=False),
        sa.Column("input_hash", sa.String(128), nullable=True),
        sa.Column("code_version", sa.String(64), nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("aggregate", "seq", name="pk_portfolio_history"),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_portfolio_history_seq_positive")),
    )
    op.create_table(
        "system_configuration",
        sa.Column("version", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_system_configuration"),
        sa.CheckConstraint("version >= 1", name=op.f("ck_system_configuration_version_range")),
    )


def _service() -> None:
    """Kept answers and single facts."""
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.String(128), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("route", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("locked_until", INSTANT, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name="pk_idempotency_keys"),
        sa.CheckConstraint(
            "state IN ('running', 'done')", name=op.f("ck_idempotency_keys_state_known")
        ),
        sa.CheckConstraint(
            "(state = 'done') = (status IS NOT NULL)", name=op.f("ck_idempotency_keys_answer_known")
        ),
    )
    op.create_index(
        "ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False
    )
    op.create_table(
        "service_facts",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_service_facts"),
    )
