"""One process per SQLite file: a lock beside it that dies with its holder."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from app.foundation.errors import Code, OperatorActionError


class DatabaseInUseError(OperatorActionError):
    """Another process has the file; a caller should exit with 78."""


class DatabasePlaceError(OperatorActionError):
    """No file can be opened at that place; a caller should exit with 78."""


@dataclass(frozen=True, slots=True)
class FileLock:
    """Held from `taken` to `release`; the kernel releases it when the process dies."""

    descriptor: int

    @classmethod
    def taken(cls, database: str) -> "FileLock":
        """The lock of the file at `database`.

        Raises DatabaseInUseError if somebody holds it, DatabasePlaceError if it cannot be there.
        """
        path = Path(os.path.realpath(database))
        descriptor = _opened(path)
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


def _opened(path: Path) -> int:
    if path.is_dir():
        raise _no_place(path, "that is a directory")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError):
        raise _no_place(path, "a part of its path is no directory") from None
    except OSError as error:
        raise _no_place(path, str(error.strerror)) from None


def _no_place(path: Path, why: str) -> DatabasePlaceError:
    return DatabasePlaceError(
        Code.DATABASE_UNAVAILABLE,
        f"the database file {path.name} cannot be opened where it is to be ({why});"
        " choose another place, or correct this one",
    )
