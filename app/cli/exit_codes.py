"""Exit codes of the command line, and the error that carries one."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from app.foundation.errors import CorruptDatabaseError, OperatorActionError, ServiceError


class ExitCode(IntEnum):
    """Stable exit codes for scripts; the numbers follow sysexits.h where it has one."""

    OK = 0
    REFUSED = 1  # the service answered 4xx; its problem code is printed
    USAGE = 2  # unknown command, missing or invalid argument
    UNAVAILABLE = 69  # the service, its exchange or its database is unavailable
    INTERNAL = 70  # the service failed or sent an invalid response
    CORRUPT = 74  # the database is damaged or its history was altered: restore a backup
    NOT_PERMITTED = 77  # the service answered 401 or 403: no valid key, or one that may not
    CONFIGURATION = 78  # a setting, a file or the schema must be changed first
    INTERRUPTED = 130  # Ctrl-C before the end of the command


class CommandError(Exception):
    """Ends a command with an exit code, a stable problem code, a sentence and the problem."""

    def __init__(
        self,
        exit_code: ExitCode,
        code: str,
        detail: str,
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.exit_code = exit_code
        self.code = code
        self.detail = detail
        self.problem: Mapping[str, Any] = problem or {"code": code, "detail": detail}


def exit_code_of_error(error: ServiceError) -> ExitCode:
    """Maps an error of this process to an exit code."""
    if isinstance(error, CorruptDatabaseError):
        return ExitCode.CORRUPT
    needs_operator = isinstance(error, OperatorActionError)
    return ExitCode.CONFIGURATION if needs_operator else ExitCode.UNAVAILABLE


def exit_code_of_status(status: int) -> ExitCode:
    """Maps the HTTP status of a refused request to an exit code."""
    if status in {401, 403}:
        return ExitCode.NOT_PERMITTED
    if status in {502, 503, 504}:
        return ExitCode.UNAVAILABLE
    return ExitCode.REFUSED if 400 <= status < 500 else ExitCode.INTERNAL
