"""File lock beside an SQLite database: one process per file; released at process death."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from app.foundation.errors import Code, OperatorActionError


class DatabaseInUseError(OperatorActionError):
    """Another process has the file open; callers exit with 78."""


class DatabasePathError(OperatorActionError):
    """No file can be opened at that path; callers exit with 78."""


@dataclass(frozen=True, slots=True)
class FileLock:
    """Lock from `acquire` to `release`; the kernel releases it when the process dies."""

    descriptor: int

    @classmethod
    def acquire(cls, database: str) -> "FileLock":
        """Takes the lock of the file at `database`.

        Raises DatabaseInUseError if another process has it, DatabasePathError for a bad path.
        """
        path = Path(os.path.realpath(database))
        descriptor = _open_lock_file(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise DatabaseInUseError(
                Code.DATABASE_UNAVAILABLE,
                f"database in use: process {holder or 'unknown'} has {path.name} open;"
                " stop it, or choose another file",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        os.close(self.descriptor)


def _open_lock_file(path: Path) -> int:
    if path.is_dir():
        raise _path_error(path, "the path is a directory")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError):
        raise _path_error(path, "a part of the path is not a directory") from None
    except OSError as error:
        raise _path_error(path, str(error.strerror)) from None


def _path_error(path: Path, reason: str) -> DatabasePathError:
    return DatabasePathError(
        Code.DATABASE_UNAVAILABLE,
        f"the database file {path.name} cannot be opened ({reason}): choose another path,"
        " or correct this one",
    )
