"""Files that only their owner can read: the pepper and the local key beside an SQLite database."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

_OWNER_ONLY: Final = 0o600


def read_secret(path: Path) -> str | None:
    """Content of a secret file, whose permissions are narrowed; None if it does not exist."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, encoding="ascii") as file:
        with suppress(OSError):  # a mounted secret may be read-only
            os.fchmod(descriptor, _OWNER_ONLY)
        return file.read().strip()


def create_secret(path: Path, text: str) -> str:
    """Writes a new secret file and returns its content; an existing file wins.

    The file appears with its whole content at once. Raises OSError.
    """
    temporary = _write(path, text)
    try:
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    stored = read_secret(path)
    if stored is None:
        raise FileNotFoundError(path)
    return stored


def replace_secret(path: Path, text: str) -> None:
    """Writes a secret file in place of an existing one. Raises OSError."""
    _write(path, text).replace(path)


def _write(path: Path, text: str) -> Path:
    """New file beside `path` with mode 0600, on disk before it is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(descriptor)
    return Path(name)
