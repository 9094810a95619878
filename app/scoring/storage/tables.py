"""Tables of scoring: algorithms, runs, one line per symbol and run, and moments of boards."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    and_,
    exists,
)

from app.foundation.sql.schema import (
    HUGE,
    FiniteFloat,
    JsonText,
    UtcInstant,
    between,
    metadata,
    type_of_uuid,
)

scoring_algorithms = Table(
    "scoring_algorithms",
    metadata,
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("body", JsonText, nullable=False),
    Column("created_at", UtcInstant, nullable=False),
    Column("created_by", String(128), nullable=False),
    PrimaryKeyConstraint("name", "version"),
)

scoring_runs = Table(
    "scoring_runs",
    metadata,
    Column("run_id", type_of_uuid, nullable=False),
    Column("algorithm", String(64), nullable=False),
    Column("algorithm_version", Integer, nullable=False),
    Column("configuration_version", Integer, nullable=False),
    Column("as_of", UtcInstant, nullable=False),
    Column("calculated_at", UtcInstant, nullable=False),
    Column("duration_ms", FiniteFloat, nullable=False),
    Column("data_source", String(16), nullable=False),
    Column("input_hash", String(128), nullable=False),
    Column("universe_size", Integer, nullable=False),
    Column("coverage", JsonText, nullable=False),
    Column("excluded", JsonText, nullable=False),  # symbol -> [reason, detail]
    Column("inputs", LargeBinary),
    # Order of the runs; timestamps are unsuitable because clocks may be set back.
    Column("seq", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("run_id"),
    between("universe_size", "0", "1000000"),
    Index("ix_scoring_runs_calculated_at", "calculated_at", "run_id"),
    Index("uq_scoring_runs_seq", "seq", unique=True),
)

symbol_scores = Table(
    "symbol_scores",
    metadata,
    Column("run_id", type_of_uuid, nullable=False),
    Column("symbol", String(64), nullable=False),
    Column("calculated_at", UtcInstant, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text),
    Column("rank", Integer),
    Column("composite", FiniteFloat),
    Column("technical", FiniteFloat),
    Column("fundamental", FiniteFloat),
    Column("market_structure", FiniteFloat),
    Column("risk", FiniteFloat),
    Column("z", FiniteFloat),
    Column("confidence", FiniteFloat),
    Column("volatility", FiniteFloat),
    PrimaryKeyConstraint("run_id", "symbol"),
    ForeignKeyConstraint(["run_id"], ["scoring_runs.run_id"], ondelete="CASCADE"),
    CheckConstraint("rank >= 1", name="rank_positive"),
    *(
        between(name, "0", "1")
        for name in (
            "composite",
            "technical",
            "fundamental",
            "market_structure",
            "risk",
            "confidence",
        )
    ),
    between("z", "-1e6", "1e6"),
    between("volatility", "0", HUGE),
    Index("ix_symbol_scores_symbol_calculated_at", "symbol", "calculated_at", "run_id"),
)

# Supporting data of all symbols of a run: zlib-compressed JSON, symbol -> document.
scoring_run_details = Table(
    "scoring_run_details",
    metadata,
    Column("run_id", type_of_uuid, nullable=False),
    Column("packed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id"),
    ForeignKeyConstraint(["run_id"], ["scoring_runs.run_id"], ondelete="CASCADE"),
)

# Mean and standard deviation of a universe's values, by day; smaller universes use them.
scoring_moments = Table(
    "scoring_moments",
    metadata,
    Column("algorithm", String(64), nullable=False),
    Column("algorithm_version", Integer, nullable=False),
    Column("day", String(10), nullable=False),  # UTC, YYYY-MM-DD
    Column("moments", JsonText, nullable=False),  # name -> [mean, sd, symbols]
    PrimaryKeyConstraint("algorithm", "algorithm_version", "day"),
)

# Moments used by a run; most runs use none.
scoring_run_moments = Table(
    "scoring_run_moments",
    metadata,
    Column("run_id", type_of_uuid, nullable=False),
    # name -> [mean, sd, symbols, days, first day, last day]
    Column("moments", JsonText, nullable=False),
    PrimaryKeyConstraint("run_id"),
    ForeignKeyConstraint(["run_id"], ["scoring_runs.run_id"], ondelete="CASCADE"),
)

# Share of the eligible symbols that each exchange source covered in a run.
scoring_run_coverage = Table(
    "scoring_run_coverage",
    metadata,
    Column("run_id", type_of_uuid, nullable=False),
    Column("source_coverage", JsonText, nullable=False),  # source -> share
    Column("is_provisional", Boolean, nullable=False),
    PrimaryKeyConstraint("run_id"),
    ForeignKeyConstraint(["run_id"], ["scoring_runs.run_id"], ondelete="CASCADE"),
)

# Condition on `scoring_runs`: a source covered too few symbols, so no decision uses the run.
# A run without a coverage row counts as provisional.
IS_PROVISIONAL = ~exists().where(
    and_(
        scoring_run_coverage.c.run_id == scoring_runs.c.run_id,
        ~scoring_run_coverage.c.is_provisional,
    )
)
