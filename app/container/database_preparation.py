"""Before a database is used: an SQLite file is looked at, the schema brought up to date."""

from pathlib import Path

from sqlalchemy import text

from app.foundation.errors import Code, CorruptDatabaseError
from app.foundation.sql import migrations
from app.foundation.sql.engines import url_of
from app.foundation.sql.errors import corrupt
from app.operations.storage.audit import inspect, reading


async def prepare(url: str) -> None:
    """The schema at its newest, in a file that is whole, over a history that holds.

    Raises CorruptDatabaseError before anything was written to a damaged file, UnavailableError
    where the database cannot be used.
    """
    await _require_whole(url)
    await migrations.upgrade(url)
    await _require_unbroken(url)


async def _require_whole(url: str) -> None:
    """SQLite's own check; a file that is not there yet is whole, and so is no file at all."""
    if not _has_file(url):
        return
    async with reading(url_of(url)) as connection:
        said = (await connection.execute(text("PRAGMA quick_check(1)"))).scalars().all()
    if said != ["ok"]:
        raise corrupt()


async def _require_unbroken(url: str) -> None:
    """A flipped bit in a row is sound SQLite and yet a lie: the error names the first one.

    A database server guards its own pages: there `my-symbols audit verify` is for the operator.
    """
    if not _has_file(url):
        return
    findings = await inspect(url)
    if not findings.ok:
        raise CorruptDatabaseError(
            Code.HISTORY_TAMPERED,
            f"the history does not hold: {findings.breaks[0].detail}; see `my-symbols audit"
            " verify`, and put a backup in its place, or move the file away to begin anew",
        )


def _has_file(url: str) -> bool:
    place = url_of(url)
    return place.get_backend_name() == "sqlite" and Path(str(place.database)).is_file()
