"""API key of a command, and the certificates that it trusts.

The key comes from --key-file, MYSYMBOLS_KEY, or the local key file of this machine.
"""

import os
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from app.cli.exit_codes import CommandError, ExitCode
from app.security.domain.keys import LOCAL_KEY_FILE

KEY_FILE: Final[ContextVar[Path | None]] = ContextVar("key_file", default=None)
CA_FILE: Final[ContextVar[Path | None]] = ContextVar("ca_file", default=None)
CA_VARIABLE: Final = "MYSYMBOLS_CA_FILE"
KEY_VARIABLE: Final = "MYSYMBOLS_KEY"
URL_VARIABLE: Final = "MYSYMBOLS_URL"
_PREFIX: Final = "MYSYMBOLS_"
_SERVICE_NAMES: Final = ("ROLE", "DEBUG", "RUN_BACKGROUND_TASKS")
_DIRECTORY_VARIABLE: Final = "MYSYMBOLS_SECURITY__DIRECTORY"
_DATABASE_VARIABLE: Final = "MYSYMBOLS_DATABASE__URL"
_PLAIN_DATABASE_VARIABLE: Final = "DATABASE_URL"
_DATABASE: Final = "sqlite+aiosqlite:///var/my-symbols.sqlite3"


@dataclass(frozen=True, slots=True)
class Credential:
    """Key to send; an automatic one was found, not named, so a service may not know it."""

    key: str = field(repr=False)
    is_automatic: bool = False

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def find_credential(url: str) -> Credential | None:
    """Key for the service at `url`; None without one.

    The local key is an administrator's: it is sent to this machine only. Raises CommandError for a
    key file that cannot be read.
    """
    path = KEY_FILE.get()
    if path is not None:
        return Credential(_read(path))
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        return Credential(key)
    local = local_key_file()
    if local is None or not is_this_machine(url) or not local.is_file():
        return None
    return Credential(_read(local), is_automatic=True)


def find_trust() -> ssl.SSLContext:
    """TLS context: trusts the certificates of --ca-file or MYSYMBOLS_CA_FILE, else the system's.

    Raises CommandError for a file that cannot be used.
    """
    named = CA_FILE.get() or os.environ.get(CA_VARIABLE, "").strip() or None
    if named is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=named)
    except (OSError, ssl.SSLError) as error:
        raise CommandError(
            ExitCode.CONFIGURATION,
            "ca_file_unusable",
            f"{named} cannot be read as certificates in PEM ({type(error).__name__}).",
        ) from None


def local_key_file() -> Path | None:
    """Place of the local key file by the environment; None for a database without one."""
    if directory := os.environ.get(_DIRECTORY_VARIABLE):
        return Path(directory) / LOCAL_KEY_FILE
    plain = os.environ.get(_PLAIN_DATABASE_VARIABLE) or _DATABASE
    parts = urlsplit(os.environ.get(_DATABASE_VARIABLE, plain))
    if parts.scheme.partition("+")[0] != "sqlite" or len(parts.path) < 2:
        return None
    database = Path(parts.path[1:])
    return database.with_name(f"{database.stem}-local.key")


def misspelled_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns names that resemble a variable of the command line, with the one that was meant.

    The variables of the service are checked where they are read; most have two underscores.
    """
    known = {one.removeprefix(_PREFIX): one for one in (URL_VARIABLE, KEY_VARIABLE, CA_VARIABLE)}
    found = {}
    for name in sorted(environment):
        text = name.removeprefix(_PREFIX)
        if text == name or "__" in text or text in {*known, *_SERVICE_NAMES}:
            continue
        similar = get_close_matches(text, known, n=1)
        if similar:
            found[name] = known[similar[0]]
    return found


def _read(path: Path) -> str:
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            ExitCode.CONFIGURATION,
            "key_file_unreadable",
            f"{path} cannot be read as a key file ({type(error).__name__}).",
        ) from None
    return key


def is_this_machine(url: str) -> bool:
    """Returns whether an address leads to the loopback interface."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
