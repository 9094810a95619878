"""Is an SQLite file whole: looked at, read-only, before anything may write to it."""

from pathlib import Path

from sqlalchemy import text

from app.domain.errors import Code
from app.storage.audit import inspect, reading
from app.storage.engines import url_of
from app.storage.faults import CorruptDatabaseError, corrupt


async def require_whole(url: str) -> None:
    """SQLite's own check of the file; a database that is not there yet, or no file, is whole.

    Raises CorruptDatabaseError.
    """
    if not _has_file(url):
        return
    async with reading(url_of(url)) as connection:
        said = (await connection.execute(text("PRAGMA quick_check(1)"))).scalars().all()
    if said != ["ok"]:
        raise corrupt()


async def require_unbroken(url: str) -> None:
    """The history of a migrated file: a flipped bit in a row is sound SQLite and yet a lie.

    A database server guards its own pages: there `my-symbols audit verify` is for the operator.
    Raises CorruptDatabaseError naming the first event that does not hold.
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
