"""Versions of the business configuration; a version never changes."""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Integer,
    PrimaryKeyConstraint,
    Row,
    Select,
    String,
    Table,
    Text,
    select,
    type_coerce,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.configuration.domain.document import ConfigurationRefusedError, as_document, from_document
from app.configuration.domain.model import Configuration
from app.foundation.errors import Code, NotFoundError, UnavailableError
from app.foundation.sql.schema import JsonText, UtcInstant, metadata
from app.foundation.sql.statements import insert

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


# Body as stored text: parsing is cached by text.
_TEXTS: Final = select(
    configuration_versions.c.version, type_coerce(configuration_versions.c.body, Text).label("body")
)
_CURRENT: Final = _TEXTS.order_by(configuration_versions.c.version.desc()).limit(1)


@dataclass(frozen=True, slots=True)
class ConfigurationRepository:
    """The settings in force and all that came before."""

    connection: AsyncConnection

    async def current(self) -> Configuration:
        """Newest version; the defaults (version 1) where none is stored.

        Raises UnavailableError for one that this version of the service cannot read.
        """
        row = await self._first(_CURRENT)
        return Configuration() if row is None else _configuration(row)

    async def get(self, version: int) -> Configuration:
        """Raises NotFoundError."""
        row = await self._first(_TEXTS.where(configuration_versions.c.version == version))
        if row is None:
            raise NotFoundError(Code.NOT_FOUND, f"there is no configuration version {version}")
        return _configuration(row)

    async def found(self, now: datetime, by: str) -> Configuration:
        """Store the defaults as version 1 in an empty database; return the current version."""
        first = insert(self.connection, configuration_versions).on_conflict_do_nothing()
        await self.connection.execute(first, self._row(Configuration(), now, by))
        return await self.current()

    async def add(self, configuration: Configuration, now: datetime, by: str) -> None:
        """Raises ConflictError version_conflict if that version exists."""
        await self.connection.execute(
            configuration_versions.insert(), self._row(configuration, now, by)
        )

    @staticmethod
    def _row(configuration: Configuration, now: datetime, by: str) -> dict[str, object]:
        return {
            "version": configuration.version,
            "body": as_document(configuration),
            "created_at": now,
            "created_by": by,
        }

    async def _first(
        self, statement: Select[*tuple[object, ...]]
    ) -> Row[*tuple[object, ...]] | None:
        return (await self.connection.execute(statement)).first()


def _configuration(row: Row[*tuple[object, ...]]) -> Configuration:
    return _understood(row.body, row.version)


@lru_cache(maxsize=8)
def _understood(text: str, version: int) -> Configuration:
    """Judging each setting anew takes longer than all statements of a change together."""
    try:
        return from_document(json.loads(text), version)
    except ConfigurationRefusedError as refused:  # stored by an earlier version: no 422
        raise UnavailableError(
            Code.DATABASE_UNAVAILABLE,
            f"the settings in force (version {version}) belong to a later version of the service:"
            " run that one",
            retry_after_s=30,
        ) from refused
