"""Encrypts addresses and secrets of notification channels with Fernet keys."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.foundation.errors import Code, ConflictError

_SEALED: Final = "sealed:"
_OWNER_ONLY: Final = 0o600


@dataclass(frozen=True, slots=True)
class FernetCipher:
    """Encrypts with the first of `keys` and decrypts with any: put a new key before the old one.

    Without keys one is created in `key_file`, readable by its owner only. Without keys and file
    nothing is encrypted, and secrets are refused.
    """

    keys: tuple[str, ...] = ()
    key_file: Path | None = None

    def seal(self, text: str) -> str:
        """Encrypt a text; raises ConflictError(secrets_key_missing) without a key."""
        keys = self._keys(may_draw=True)
        if not keys:
            raise ConflictError(
                Code.SECRETS_KEY_MISSING,
                "There is no key to encrypt addresses and secrets: set "
                "MYSYMBOLS_NOTIFICATIONS__KEYS of every process to the same one.",
            )
        return _SEALED + _box(keys).encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypt a text; raises ConflictError(secrets_key_missing) when no key fits."""
        if not self.is_sealed(sealed):
            return sealed  # stored before a key existed
        keys = self._keys(may_draw=False)
        try:
            if keys:
                return _box(keys).decrypt(sealed.removeprefix(_SEALED)).decode()
        except InvalidToken:
            pass
        raise ConflictError(
            Code.SECRETS_KEY_MISSING,
            "The key that encrypted this channel is missing: set "
            "MYSYMBOLS_NOTIFICATIONS__KEYS, or name its address and secret again.",
        ) from None

    def is_sealed(self, text: str) -> bool:
        return text.startswith(_SEALED)

    def _keys(self, *, may_draw: bool) -> tuple[str, ...]:
        if self.keys or self.key_file is None:
            return self.keys
        if self.key_file.exists():
            self.key_file.chmod(_OWNER_ONLY)
            return (self.key_file.read_text(encoding="ascii").strip(),)
        return (_create_key(self.key_file),) if may_draw else ()


def _box(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def _create_key(path: Path) -> str:
    """Create a key in a file that only its owner can read at any moment."""
    key = Fernet.generate_key().decode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())  # on disk before the first text is encrypted with it
    return key
