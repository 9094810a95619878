"""Prepares a database: checks an SQLite file and migrates the schema."""

from pathlib import Path

from sqlalchemy import text

from app.foundation.errors import Code, CorruptDatabaseError
from app.foundation.sql import migrations
from app.foundation.sql.engines import parse_database_url
from app.foundation.sql.errors import corrupt
from app.operations.storage.audit import open_read_only, verify_history


async def prepare(url: str) -> None:
    """Check the file and the history and migrate the schema.

    Raises CorruptDatabaseError before any write to a damaged file, UnavailableError for an
    unusable database.
    """
    await _require_whole(url)
    await migrations.upgrade(url)
    await _require_unbroken(url)


async def _require_whole(url: str) -> None:
    """Run SQLite's integrity check; a missing file and another database pass."""
    if not _has_file(url):
        return
    async with open_read_only(parse_database_url(url)) as connection:
        said = (await connection.execute(text("PRAGMA quick_check(1)"))).scalars().all()
    if said != ["ok"]:
        raise corrupt()


async def _require_unbroken(url: str) -> None:
    """Verify the history: SQLite does not detect a flipped bit within a row.

    A database server checks its own pages: there the operator runs `my-symbols audit verify`.
    """
    if not _has_file(url):
        return
    findings = await verify_history(url)
    if not findings.ok:
        raise CorruptDatabaseError(
            Code.HISTORY_TAMPERED,
            f"the history does not hold: {findings.breaks[0].detail}; see `my-symbols audit"
            " verify`, and put a backup in its place, or move the file away to begin anew",
        )


def _has_file(url: str) -> bool:
    place = parse_database_url(url)
    return place.get_backend_name() == "sqlite" and Path(str(place.database)).is_file()
