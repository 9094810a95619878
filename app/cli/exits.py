"""Exit codes of the command line and the one error that carries them."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

from app.foundation.errors import ServiceError
from app.foundation.sql.database import DataSourceMismatchError
from app.foundation.sql.errors import CorruptDatabaseError, SchemaTooNewError, SchemaTooOldError
from app.foundation.sql.file_lock import DatabaseInUseError, DatabasePlaceError

# Trying again does not help against these; everything else may come back by itself.
_TO_BE_CHANGED: Final = (
    DatabaseInUseError,
    DatabasePlaceError,
    DataSourceMismatchError,
    SchemaTooNewError,
    SchemaTooOldError,
)


class Exit(IntEnum):
    """What a calling script can rely on; the numbers follow sysexits.h where it has one."""

    OK = 0
    REFUSED = 1  # the service said no: a 4xx problem, its code is printed
    USAGE = 2  # unknown command, missing argument
    UNAVAILABLE = 69  # the service, its exchange or its database cannot answer now
    INTERNAL = 70  # the service failed, or answered with something that it never should
    CORRUPT = 74  # the database file is damaged or its history was altered: a backup is needed
    CONFIGURATION = 78  # a setting, a file or the schema must be changed first
    INTERRUPTED = 130  # Ctrl-C in a command that had not finished


class CommandError(Exception):
    """Ends a command: an exit code, a stable word, a sentence, and the problem if there is one."""

    def __init__(
        self,
        exit_code: Exit,
        code: str,
        detail: str,
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.exit_code = exit_code
        self.code = code
        self.detail = detail
        self.problem: Mapping[str, Any] = problem or {"code": code, "detail": detail}


def exit_of(error: ServiceError) -> Exit:
    """What a failure below means to a calling script, before anything has answered over HTTP."""
    if isinstance(error, CorruptDatabaseError):
        return Exit.CORRUPT
    return Exit.CONFIGURATION if isinstance(error, _TO_BE_CHANGED) else Exit.UNAVAILABLE
