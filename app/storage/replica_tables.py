"""Tables of processes that share one database: who is alive."""

from sqlalchemy import BigInteger, CheckConstraint, Column, PrimaryKeyConstraint, String, Table

from app.storage.metadata import metadata

job_executors = Table(
    "job_executors",
    metadata,
    Column("executor_id", String(128), nullable=False),
    # Milliseconds of the database's clock: those of the processes differ.
    Column("seen_ms", BigInteger, nullable=False, autoincrement=False),
    PrimaryKeyConstraint("executor_id"),
    CheckConstraint("seen_ms > 0", name="seen_ms_positive"),
)
