"""Hashes and verifies passwords with argon2id in threads; the number at once is bounded."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.foundation.errors import Code, UnavailableError
from app.security.domain.people import normalize_password

RUNNING: Final = 2  # hashes at once: each takes 64 MiB and a core
WAITING: Final = 16
_RETRY_S: Final = 2.0
T = TypeVar("T")


@dataclass(slots=True)
class PasswordHashing:
    """Argon2id with the parameters of RFC 9106 for little memory.

    Every method raises UnavailableError (overloaded) while too many calls wait.
    """

    hasher: PasswordHasher = field(default_factory=PasswordHasher)
    waiting: int = WAITING
    # A pool of its own: a cancelled caller leaves its thread running, which still counts.
    _pool: ThreadPoolExecutor = field(init=False)
    _pending: int = field(default=0, init=False)
    _decoy: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(RUNNING, thread_name_prefix="password")

    async def hash(self, password: str) -> str:
        """Hash of the normalized password, with its parameters and a salt."""
        return await self._run(lambda: self.hasher.hash(normalize_password(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """True if the password is the right one.

        Without a stored hash the time is the same and the answer False.
        """
        decoy = self._decoy
        if decoy is None:  # of both kinds of calls, so that neither takes longer
            decoy = self._decoy = await self.hash("no user has this password")
        is_right = await self._run(
            lambda: self._matches(decoy if stored is None else stored, password)
        )
        return is_right and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """True if the hash was made with other parameters than those in use."""
        return self.hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self.hasher.verify(stored, normalize_password(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._pending >= RUNNING + self.waiting:
            raise UnavailableError(
                Code.OVERLOADED, "Too many log-ins are under way.", retry_after_s=_RETRY_S
            )
        self._pending += 1
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        running.add_done_callback(self._note_end)
        return await asyncio.shield(running)

    def _note_end(self, _: object) -> None:
        self._pending -= 1
