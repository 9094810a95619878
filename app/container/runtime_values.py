"""Clock, identifiers and code version: the only impure values of the program."""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import app
from app.foundation.ports import Clock, Monotonic, NewId

_SINCE_BOOT: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def utc_now() -> datetime:
    """Returns the wall clock in UTC."""
    return datetime.now(UTC)  # noqa: TID251  # the wall clock of the program


def elapsed_s() -> float:
    """Returns monotonic seconds, including suspension where the system counts it."""
    return time.monotonic() if _SINCE_BOOT is None else time.clock_gettime(_SINCE_BOOT)


def new_id() -> str:
    """Returns a random UUID as text; `uuid.UUID` would take three times as long."""
    random = bytearray(os.urandom(16))
    random[6] = random[6] & 0x0F | 0x40  # version 4
    random[8] = random[8] & 0x3F | 0x80  # variant of RFC 9562
    text = random.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@dataclass(frozen=True, slots=True)
class RuntimeValues:
    """Clocks, sleep and id generator of one composition; a replay replaces them."""

    now: Clock = utc_now
    monotonic: Monotonic = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    new_id: NewId = new_id


def code_version() -> str:
    """Returns the version of the installed package; "unknown" if it is not installed."""
    try:
        return version("my-symbols")
    except PackageNotFoundError:
        return "unknown"


@cache
def code_digest() -> str:
    """Returns twelve digits of the hash of all sources; distinguishes builds of one version."""
    package = Path(next(iter(app.__path__)))
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def full_version() -> str:
    """Returns version and digest, by which processes on one database compare their code."""
    return f"{code_version()}+{code_digest()}"
