"""Tables of rebalance runs: one row per run, one per step of it."""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

from app.foundation.sql.metadata import between, metadata
from app.foundation.sql.types import FiniteFloat, JsonText, UtcInstant

_ACTIVE: Final = "state IN ('planned', 'running')"
# A tick that came to nothing may be tried again; any other has its one run.
_EFFECTIVE: Final = (
    "scheduled_at IS NOT NULL"
    " AND state IN ('planned', 'running', 'done', 'unchanged', 'observed', 'proposed')"
)

rebalance_runs = Table(
    "rebalance_runs",
    metadata,
    Column("run_id", String(64), nullable=False),
    # No foreign key: checking it would wait for whoever has the portfolio locked.
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
    # The column keeps its name: processes of an older version write it while newer ones start.
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
