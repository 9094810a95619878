"""Tables of the business configuration."""

from sqlalchemy import CheckConstraint, Column, Integer, PrimaryKeyConstraint, String, Table

from app.foundation.sql.metadata import metadata
from app.foundation.sql.types import JsonText, UtcInstant

configuration_versions = Table(
    "configuration_versions",
    metadata,
    Column("version", Integer, nullable=False, autoincrement=False),
    Column("body", JsonText, nullable=False),
    Column("created_at", UtcInstant, nullable=False),
    Column("created_by", String(128), nullable=False),
    PrimaryKeyConstraint("version"),
    CheckConstraint("version >= 1", name="version_range"),
)
