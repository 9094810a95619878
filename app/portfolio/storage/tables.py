"""Tables of the portfolio: members, history, trades, replacements, runs, proposals."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from app.foundation.sql.schema import (
    ExactDecimal,
    FiniteFloat,
    JsonText,
    UtcInstant,
    between,
    exact,
    metadata,
    type_of_uuid,
)

# Events that change members or weights; identical to the condition of an index.
MOVED: Final = "type IN ('ADD', 'REBALANCE', 'REMOVE', 'REPLACE', 'WEIGHTS')"
PORTFOLIO_ID: Final = "main"  # the only portfolio, and the aggregate of its history

portfolio = Table(
    "portfolio",
    metadata,
    Column("id", String(36), nullable=False),
    Column("version", Integer, nullable=False),
    Column("configuration_version", Integer, nullable=False),
    Column("cash_u", Integer, nullable=False),
    Column("weighted_at", UtcInstant),
    Column("updated_at", UtcInstant),
    PrimaryKeyConstraint("id"),
    CheckConstraint("version >= 0", name="version_range"),
    between("cash_u", "0", "100000000"),
)

portfolio_members = Table(
    "portfolio_members",
    metadata,
    Column("portfolio_id", String(36), nullable=False),
    Column("symbol_id", type_of_uuid, nullable=False),
    # Version that added the member: a returning symbol gets another row.
    Column("entered_version", Integer, nullable=False),
    Column("symbol", String(64), nullable=False),
    Column("contract", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("rank", Integer, nullable=False),
    Column("included_at", UtcInstant, nullable=False),
    Column("inclusion_reason", Text, nullable=False),
    Column("inclusion_price", ExactDecimal),
    Column("inclusion_score", FiniteFloat),
    Column("weight_u", Integer, nullable=False),
    Column("target_weight_u", Integer, nullable=False),
    Column("left_at", UtcInstant),
    Column("leaving_reason", Text),
    PrimaryKeyConstraint("portfolio_id", "symbol_id", "entered_version"),
    ForeignKeyConstraint(["portfolio_id"], ["portfolio.id"]),
    ForeignKeyConstraint(["symbol_id"], ["contracts.id"]),
    CheckConstraint("status IN ('Active', 'Removed', 'Replaced')", name="status_known"),
    CheckConstraint("(status = 'Active') = (left_at IS NULL)", name="left_at_known"),
    CheckConstraint("rank >= 1", name="rank_positive"),
    between("weight_u", "0", "100000000"),
    between("target_weight_u", "0", "100000000"),
    between("inclusion_score", "0", "1"),
    *exact("inclusion_price"),
)
for _column in ("symbol_id", "rank"):
    Index(
        f"uq_portfolio_members_{_column}_active",
        portfolio_members.c.portfolio_id,
        portfolio_members.c[_column],
        unique=True,
        sqlite_where=text("status = 'Active'"),
        postgresql_where=text("status = 'Active'"),
    )

portfolio_history = Table(
    "portfolio_history",
    metadata,
    Column("aggregate", String(36), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("type", String(32), nullable=False),
    Column("symbol", String(64)),
    Column("other_symbol", String(64)),
    Column("payload", JsonText, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("occurred_at", UtcInstant, nullable=False),
    Column("configuration_version", Integer, nullable=False),
    Column("input_hash", String(128)),
    Column("code_version", String(64), nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    PrimaryKeyConstraint("aggregate", "seq"),
    CheckConstraint("seq >= 1", name="seq_positive"),
    Index(
        "ix_portfolio_history_moved",
        "aggregate",
        "seq",
        sqlite_where=text(MOVED),
        postgresql_where=text(MOVED),
    ),
    Index("ix_portfolio_history_occurred_at", "occurred_at", "seq"),
)

trades = Table(
    "trades",
    metadata,
    Column("trade_id", String(128), nullable=False),
    # Event that booked it; defines the order of booking.
    Column("event_seq", BigInteger, nullable=False, autoincrement=False),
    Column("symbol_id", type_of_uuid, nullable=False),
    Column("symbol", String(64), nullable=False),
    Column("contract", String(64), nullable=False),
    Column("currency", String(16), nullable=False),
    Column("pnl", ExactDecimal, nullable=False),
    Column("fees", ExactDecimal, nullable=False),
    Column("funding", ExactDecimal, nullable=False),
    Column("occurred_at", UtcInstant, nullable=False),
    Column("booked_at", UtcInstant, nullable=False),
    PrimaryKeyConstraint("trade_id"),
    UniqueConstraint("event_seq"),
    ForeignKeyConstraint(["symbol_id"], ["contracts.id"]),
    CheckConstraint("event_seq >= 1", name="event_seq_positive"),
    *exact("pnl"),
    *exact("fees"),
    *exact("funding"),
    Index("ix_trades_occurred_at", "occurred_at", "event_seq"),
    Index("ix_trades_symbol_id", "symbol_id", "event_seq"),
)

# Running totals of booked results, so that reads need not sum all rows.
booked_totals = Table(
    "booked_totals",
    metadata,
    Column("symbol_id", type_of_uuid, nullable=False),
    Column("currency", String(16), nullable=False),
    Column("results", BigInteger, nullable=False),
    Column("pnl", ExactDecimal, nullable=False),
    Column("fees", ExactDecimal, nullable=False),
    Column("funding", ExactDecimal, nullable=False),
    PrimaryKeyConstraint("symbol_id", "currency"),
    ForeignKeyConstraint(["symbol_id"], ["contracts.id"]),
    CheckConstraint("results >= 1", name="results_positive"),
    *exact("pnl"),
    *exact("fees"),
    *exact("funding"),
)


replacement_confirmations = Table(
    "replacement_confirmations",
    metadata,
    Column("portfolio_id", String(36), nullable=False),
    Column("symbol", String(64), nullable=False),
    Column("candidate", String(64), nullable=False),
    Column("confirmations", Integer, nullable=False),
    Column("input_hash", String(128), nullable=False),
    Column("is_confirmed", Boolean, nullable=False),
    Column("counted_at", UtcInstant, nullable=False),
    PrimaryKeyConstraint("portfolio_id", "symbol"),
    ForeignKeyConstraint(["portfolio_id"], ["portfolio.id"]),
    CheckConstraint("confirmations >= 1", name="confirmations_positive"),
)

# Seats of members that were forced out without a complete board.
vacancies = Table(
    "vacancies",
    metadata,
    Column("portfolio_id", String(36), nullable=False),
    Column("symbol", String(64), nullable=False),  # of the member that left
    Column("reason", Text, nullable=False),
    Column("vacated_at", UtcInstant, nullable=False),
    PrimaryKeyConstraint("portfolio_id", "symbol"),
    ForeignKeyConstraint(["portfolio_id"], ["portfolio.id"]),
)


_OPEN: Final = "state = 'open'"

proposals = Table(
    "proposals",
    metadata,
    Column("proposal_id", String(64), nullable=False),
    Column("portfolio_id", String(36), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("action", JsonText, nullable=False),
    Column("opened_at", UtcInstant, nullable=False),
    Column("expires_at", UtcInstant, nullable=False),
    Column("run_id", String(64)),
    Column("decided_at", UtcInstant),
    Column("decided_by", String(128)),
    Column("decision_reason", Text),
    Column("decision_run_id", String(64)),
    Column("decision_version", Integer),
    Column("proposed_by", String(128)),
    PrimaryKeyConstraint("proposal_id"),
    CheckConstraint("kind IN ('rebalance', 'replacement', 'signal')", name="kind_known"),
    CheckConstraint(
        "state IN ('open', 'approved', 'declined', 'expired', 'superseded')", name="state_known"
    ),
    CheckConstraint(f"({_OPEN}) = (decided_at IS NULL)", name="decided_at_known"),
    Index(
        "uq_proposals_open",
        "portfolio_id",
        "kind",
        "subject",
        unique=True,
        sqlite_where=text(_OPEN),
        postgresql_where=text(_OPEN),
    ),
    Index("ix_proposals_opened_at", "opened_at", "proposal_id"),
)


_ACTIVE: Final = "state IN ('planned', 'running')"
# A tick whose run failed may be retried; any other has one run.
_EFFECTIVE: Final = (
    "scheduled_at IS NOT NULL"
    " AND state IN ('planned', 'running', 'done', 'unchanged', 'observed', 'proposed')"
)

rebalance_runs = Table(
    "rebalance_runs",
    metadata,
    Column("run_id", String(64), nullable=False),
    # No foreign key, because its check would wait for the lock on the portfolio row.
    Column("portfolio_id", String(36), nullable=False),
    Column("state", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("method", String(32)),
    Column("scheduled_at", UtcInstant),
    Column("actor", String(128), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("key", String(255)),
    Column("owner", String(128), nullable=False),
    Column("requested_at", UtcInstant, nullable=False),
    Column("lease_until", UtcInstant, nullable=False),
    Column("started_at", UtcInstant),
    Column("finished_at", UtcInstant),
    Column("version_before", Integer),
    Column("version_after", Integer),
    Column("triggers", JsonText),
    Column("changes", JsonText),
    Column("turnover_u", Integer),
    Column("cost", FiniteFloat),
    Column("details", JsonText),
    Column("error_code", String(64)),
    Column("error_detail", Text),
    PrimaryKeyConstraint("run_id"),
    CheckConstraint(
        "state IN ('planned', 'running', 'done', 'unchanged', 'observed', 'proposed', 'failed',"
        " 'aborted_stale', 'aborted_killed', 'aborted_expired')",
        name="state_known",
    ),
    CheckConstraint(f"({_ACTIVE}) = (finished_at IS NULL)", name="finished_at_known"),
    between("turnover_u", "0", "200000000"),
    Index(
        "uq_rebalance_runs_active",
        "portfolio_id",
        unique=True,
        sqlite_where=text(_ACTIVE),
        postgresql_where=text(_ACTIVE),
    ),
    Index(
        "uq_rebalance_runs_tick",
        "portfolio_id",
        "scheduled_at",
        unique=True,
        sqlite_where=text(_EFFECTIVE),
        postgresql_where=text(_EFFECTIVE),
    ),
    Index("ix_rebalance_runs_requested_at", "requested_at", "run_id"),
)

rebalance_run_steps = Table(
    "rebalance_run_steps",
    metadata,
    Column("run_id", String(64), nullable=False),
    Column("position", Integer, nullable=False),
    # The column keeps its name, because older processes write it during an update.
    Column("beat", String(16), nullable=False, key="name"),
    Column("state", String(16), nullable=False),
    Column("started_at", UtcInstant, nullable=False),
    Column("finished_at", UtcInstant, nullable=False),
    Column("detail", JsonText, nullable=False),
    PrimaryKeyConstraint("run_id", "position"),
    ForeignKeyConstraint(["run_id"], ["rebalance_runs.run_id"]),
    CheckConstraint("position >= 1", name="position_positive"),
    CheckConstraint("state IN ('done', 'skipped', 'failed')", name="state_known"),
)
