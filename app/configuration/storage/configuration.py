"""Versions of the business configuration; a version never changes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

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
from app.foundation.sql.database import UnitOfWork
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


# Stored text of the body: parsed documents are cached by text.
_TEXTS: Final = select(
    configuration_versions.c.version, type_coerce(configuration_versions.c.body, Text).label("body")
)
_ROWS: Final = select(
    configuration_versions.c.version,
    configuration_versions.c.body,
    configuration_versions.c.created_at,
    configuration_versions.c.created_by,
)
_CURRENT: Final = _TEXTS.order_by(configuration_versions.c.version.desc()).limit(1)


@dataclass(frozen=True, slots=True)
class StoredConfiguration:
    """Stored document of one version with time and author; any version of the service wrote it."""

    version: int
    document: Mapping[str, object]
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class ConfigurationRepository:
    """All versions of the settings."""

    connection: AsyncConnection

    async def current(self) -> Configuration:
        """Returns the newest version; the defaults (version 1) if none is stored.

        Raises UnavailableError if this version of the service cannot read it.
        """
        row = await self._first(_CURRENT)
        return Configuration() if row is None else _configuration(row)

    async def get(self, version: int) -> Configuration:
        """Returns one version. Raises NotFoundError."""
        row = await self._first(_TEXTS.where(configuration_versions.c.version == version))
        if row is None:
            raise _unknown(version)
        return _configuration(row)

    async def stored(self, version: int) -> StoredConfiguration:
        """Returns the document of one version as it was written. Raises NotFoundError."""
        row = await self._first(_ROWS.where(configuration_versions.c.version == version))
        if row is None:
            raise _unknown(version)
        return _stored(row)

    async def page(self, before: int | None, limit: int) -> tuple[StoredConfiguration, ...]:
        """Returns at most `limit` documents of versions below `before`, newest first."""
        wanted = _ROWS.order_by(configuration_versions.c.version.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(configuration_versions.c.version < before)
        return tuple(_stored(row) for row in await self.connection.execute(wanted))

    async def get_or_create(self, now: datetime, by: str) -> Configuration:
        """Stores the defaults as version 1 in an empty database; returns the current version."""
        first = insert(self.connection, configuration_versions).on_conflict_do_nothing()
        await self.connection.execute(first, self._row(Configuration(), now, by))
        return await self.current()

    async def add(self, configuration: Configuration, now: datetime, by: str) -> None:
        """Stores a new version. Raises ConflictError (version_conflict) if it exists."""
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


async def load_configuration(unit: UnitOfWork, version: int) -> Configuration:
    """Returns a version of the settings; version 1 are the defaults if none is stored.

    Raises NotFoundError.
    """
    try:
        return await unit.get(ConfigurationRepository).get(version)
    except NotFoundError:
        if version != Configuration().version:
            raise
        return Configuration()


def _unknown(version: int) -> NotFoundError:
    return NotFoundError(Code.NOT_FOUND, f"there is no configuration version {version}")


def _stored(row: Row[*tuple[Any, ...]]) -> StoredConfiguration:
    return StoredConfiguration(row.version, row.body, row.created_at, row.created_by)


def _configuration(row: Row[*tuple[object, ...]]) -> Configuration:
    return _parse(row.body, row.version)


@lru_cache(maxsize=8)
def _parse(text: str, version: int) -> Configuration:
    """Cached, because validating every setting takes longer than all statements of a change."""
    try:
        return from_document(json.loads(text), version)
    except ConfigurationRefusedError as refused:  # stored by another version: not a 422
        raise UnavailableError(
            Code.DATABASE_UNAVAILABLE,
            f"the current settings (version {version}) belong to a later version of the service:"
            " run that version",
            retry_after_s=30,
        ) from refused
