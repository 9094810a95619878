"""Startup check of a database: file integrity, schema migration and history."""

from pathlib import Path

from sqlalchemy import text

from app.foundation.errors import Code, CorruptDatabaseError
from app.foundation.sql import migrations
from app.foundation.sql.engines import parse_database_url
from app.foundation.sql.errors import corrupt_database_error
from app.operations.storage.audit import open_read_only, verify_history, verify_security_events


async def prepare(url: str) -> None:
    """Checks the file, migrates the schema and verifies the history.

    Raises CorruptDatabaseError before any write to a damaged file, UnavailableError for an
    unusable database.
    """
    await _require_intact_file(url)
    await migrations.upgrade(url)
    await _require_intact_history(url)


async def _require_intact_file(url: str) -> None:
    """Runs SQLite's integrity check; skips a missing file and a database server."""
    if not _has_file(url):
        return
    async with open_read_only(parse_database_url(url)) as connection:
        results = (await connection.execute(text("PRAGMA quick_check(1)"))).scalars().all()
    if results != ["ok"]:
        raise corrupt_database_error()


async def _require_intact_history(url: str) -> None:
    """Verifies both hash chains, because SQLite does not detect a flipped bit within a row.

    A database server checks its own pages; there the operator runs `my-symbols audit verify`.
    """
    if not _has_file(url):
        return
    findings = await verify_history(url)
    if not findings.ok:
        raise CorruptDatabaseError(
            Code.HISTORY_TAMPERED,
            f"the history is damaged: {findings.breaks[0].detail}; see `my-symbols audit verify`,"
            " and restore a backup, or move the file away to start with an empty one",
        )
    security = await verify_security_events(url)
    if not security.ok:
        raise CorruptDatabaseError(
            Code.HISTORY_TAMPERED,
            f"the chain of security events is damaged: {security.breaks[0].detail}; see"
            " `my-symbols audit verify`, and restore a backup",
        )


def _has_file(url: str) -> bool:
    address = parse_database_url(url)
    return address.get_backend_name() == "sqlite" and Path(str(address.database)).is_file()
