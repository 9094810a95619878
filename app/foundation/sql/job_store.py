"""Store of durable runs: a second file beside an SQLite database, or the same PostgreSQL."""

import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from app.foundation.sql.engines import parse_database_url

_BUSY_TIMEOUT_MS: Final = 30_000
# SQLite's unixepoch knows 'subsec' since this version; older ones return NULL.
_SUBSEC_SINCE: Final = (3, 42, 0)
# asyncpg option -> libpq option; other asyncpg options have no libpq equivalent.
_OPTIONS: Final = {"host": "host", "port": "port", "ssl": "sslmode", "passfile": "passfile"}


@dataclass(frozen=True, slots=True)
class JobStore:
    """Address in the form of synchronous drivers; `engine` is set for SQLite only."""

    url: str = field(repr=False)  # it may hold a password
    engine: Engine | None
    is_shared: bool  # several processes may use it at once
    errors: tuple[type[Exception], ...] = (SQLAlchemyError,)  # raised while it is unavailable

    def close(self) -> None:
        if self.engine is not None:
            self.engine.dispose()


def jobs_file(database: Path) -> Path:
    """Returns the path of the job file that belongs to the SQLite file `database`."""
    return database.with_name(f"{database.stem}-jobs{database.suffix}")


def create_job_store(database: str) -> JobStore:
    """Returns the job store of the database at that address; connects to nothing yet.

    Raises ValueError for an unsupported database.
    """
    url = parse_database_url(database)
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
        # Writers queue instead of failing late; write-ahead logging makes a step cost a third.
        connection.isolation_level = "IMMEDIATE"
        if sqlite3.sqlite_version_info < _SUBSEC_SINCE:
            # DBOS assumes the SQLite that ships with Python 3.12. On Linux distributions with an
            # older one, no job could be written.
            connection.create_function("unixepoch", 1, _unix_epoch)
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", f"busy_timeout={_BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return JobStore(f"sqlite:///{beside}", engine, is_shared=False)


def _unix_epoch(modifier: str) -> float | None:
    """Emulates SQLite's unixepoch('subsec'), in seconds; returns None for other modifiers."""
    return time.time() if modifier == "subsec" else None  # noqa: TID251  # replaces SQLite's clock


def key_file(url: str, purpose: str) -> Path | None:
    """Returns the path for a key beside an SQLite file; None for a shared database."""
    parts = parse_database_url(url)
    if parts.get_backend_name() != "sqlite":
        return None
    file = Path(str(parts.database))
    return file.with_name(f"{file.stem}-{purpose}.key")
