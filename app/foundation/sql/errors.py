"""What a driver says when it fails, in the language of the domain."""

import sqlite3
from collections.abc import Callable, Mapping
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.sql.constraints import broken

Say = Callable[[], ServiceError]


def unavailable() -> UnavailableError:
    return UnavailableError(
        Code.DATABASE_UNAVAILABLE, "the database cannot be reached", retry_after_s=5
    )


class CorruptDatabaseError(UnavailableError):
    """The file or its history is damaged; waiting does not help, so 74 rather than 69."""


def corrupt() -> CorruptDatabaseError:
    return CorruptDatabaseError(
        Code.DATABASE_UNAVAILABLE,
        "the database file is corrupt, or no SQLite database: put a backup in its place,"
        " or move it away to begin with an empty one",
    )


def contention() -> UnavailableError:
    return UnavailableError(
        Code.DATABASE_CONTENTION, "the database is busy with other changes", retry_after_s=1
    )


def overloaded() -> UnavailableError:
    return UnavailableError(Code.OVERLOADED, "all database connections are in use", retry_after_s=2)


class WritesRefusedError(UnavailableError):
    """The database can be read and takes no changes, whoever asks."""


def full() -> WritesRefusedError:
    return WritesRefusedError(
        Code.STORAGE_FULL, "the disk of the database is full", retry_after_s=60
    )


def read_only() -> WritesRefusedError:
    return WritesRefusedError(
        Code.DATABASE_UNAVAILABLE, "the database can only be read at present", retry_after_s=5
    )


def unmigrated() -> UnavailableError:
    return UnavailableError(
        Code.DATABASE_UNAVAILABLE, "the database schema is not the one expected", retry_after_s=30
    )


class SchemaTooNewError(UnavailableError):
    """A later version of the service has migrated the database: this one must not touch it."""


def too_new() -> SchemaTooNewError:
    return SchemaTooNewError(
        Code.DATABASE_UNAVAILABLE,
        "the database schema belongs to a later version of the service: run that one",
        retry_after_s=30,
    )


def unfit() -> ServiceError:
    return ServiceError(Code.INTERNAL_ERROR, "a value of ours does not fit its column")


READ_ONLY: Final = "25006"
# Exact SQLSTATE first, then its class (first two characters).
_BY_STATE: Final[Mapping[str, Say]] = {
    "40001": contention,  # serialisation failure
    "40P01": contention,  # deadlock
    "55P03": contention,  # lock time-out
    "57014": contention,  # statement time-out
    "53100": full,
    "53300": overloaded,  # too many connections
    READ_ONLY: read_only,  # a failover
    "25P03": unavailable,  # idle in transaction too long
    "42P01": unmigrated,
    "42703": unmigrated,
    "3D000": unavailable,
    "08": unavailable,
    "22": unfit,
    "28": unavailable,
    "53": unavailable,
    "57": unavailable,
    "58": unavailable,
    "XX": unavailable,
}
_BY_SQLITE: Final[Mapping[int, Say]] = {
    sqlite3.SQLITE_BUSY: contention,
    sqlite3.SQLITE_LOCKED: contention,
    sqlite3.SQLITE_FULL: full,
    sqlite3.SQLITE_IOERR: unavailable,
    sqlite3.SQLITE_CANTOPEN: unavailable,
    sqlite3.SQLITE_CORRUPT: corrupt,
    sqlite3.SQLITE_NOTADB: corrupt,
    sqlite3.SQLITE_READONLY: read_only,
}
RETRYABLE: Final = frozenset({"40001", "40P01"})
CONNECT_ERRORS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


def sqlstate(error: BaseException | None) -> str | None:
    """PostgreSQL's five letters, from SQLAlchemy's or asyncpg's exception."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return str(state) if state else None


def translated(error: Exception, pool_wait: Say = overloaded) -> ServiceError | None:
    """The domain's error for a failure below; None when it is a mistake in our own SQL.

    `pool_wait` says what waiting in vain for a connection means.
    """
    if isinstance(error, PoolTimeoutError):
        return pool_wait()
    if isinstance(error, IntegrityError):
        return broken(error)
    if isinstance(error, DBAPIError):
        return _driver(error)
    if isinstance(error, CONNECT_ERRORS):
        return (_of_state(sqlstate(error)) or unavailable)()
    return None


def _driver(error: DBAPIError) -> ServiceError | None:
    say = _of_state(sqlstate(error.orig))
    if say is None and isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", None)
        # The low byte is the kind, the rest detail.
        say = None if code is None else _BY_SQLITE.get(code & 0xFF)
        if say is None and "no such " in str(error.orig):
            say = unmigrated
    if say is None and error.connection_invalidated:
        say = unavailable
    return None if say is None else say()


def _of_state(state: str | None) -> Say | None:
    if state is None:
        return None
    return _BY_STATE.get(state) or _BY_STATE.get(state[:2])
