"""Where durable runs are kept: a file of their own beside an SQLite database, or its PostgreSQL."""

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from app.foundation.sql.engines import url_of

_BUSY_TIMEOUT_MS: Final = 30_000
# From here on SQLite's unixepoch knows 'subsec'; before, it answers NULL.
_SUBSEC_SINCE: Final = (3, 42, 0)
# Spelt by asyncpg on the left, by libpq on the right; other asyncpg options mean nothing to libpq.
_OPTIONS: Final = {"host": "host", "port": "port", "ssl": "sslmode", "passfile": "passfile"}


@dataclass(frozen=True, slots=True)
class JobStore:
    """An address in the spelling of synchronous drivers; `engine` where we set it up ourselves."""

    url: str
    engine: Engine | None
    is_shared: bool  # several processes may use it at once
    errors: tuple[type[Exception], ...] = (SQLAlchemyError,)  # what it raises when it is away

    def close(self) -> None:
        if self.engine is not None:
            self.engine.dispose()


def jobs_file(database: Path) -> Path:
    """The file with the jobs of the SQLite file `database`."""
    return database.with_name(f"{database.stem}-jobs{database.suffix}")


def job_store(database: str) -> JobStore:
    """The store that belongs to the database at that address; nothing is connected yet.

    Raises ValueError for a database that cannot serve us.
    """
    url = url_of(database)
    if url.get_backend_name() != "sqlite":
        query = {_OPTIONS[name]: value for name, value in url.query.items() if name in _OPTIONS}
        shared = url.set(drivername="postgresql+psycopg", query=query)
        return JobStore(shared.render_as_string(hide_password=False), None, is_shared=True)
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = jobs_file(path)
    engine = create_engine(f"sqlite:///{beside}")

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: object) -> None:
        # Writers queue up instead of failing late; a log ahead makes a step cost a third.
        connection.isolation_level = "IMMEDIATE"
        if sqlite3.sqlite_version_info < _SUBSEC_SINCE:
            # The engine takes for granted that Python 3.12 comes with a newer SQLite; many a
            # Linux has an older one, where no job could be written.
            connection.create_function("unixepoch", 1, _unix_epoch)
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", f"busy_timeout={_BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return JobStore(f"sqlite:///{beside}", engine, is_shared=False)


def _unix_epoch(what: str) -> float | None:
    """SQLite's unixepoch('subsec'), in seconds; None, as there, for what is no time."""
    return time.time() if what == "subsec" else None  # noqa: TID251  # in place of SQLite's clock


def key_file(url: str, purpose: str = "channels") -> Path | None:
    """Where a key may lie beside an SQLite file; None where several machines share a database."""
    parts = url_of(url)
    if parts.get_backend_name() != "sqlite":
        return None
    file = Path(str(parts.database))
    return file.with_name(f"{file.stem}-{purpose}.key")
