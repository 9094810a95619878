"""Seals secrets of the database under the newest of several keys, and opens them with any."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.foundation.errors import Code, ConflictError
from app.security.domain.sealing import (
    SEALED_MARK,
    SealingKey,
    sealing_key_fault,
    split_sealing_keys,
)
from app.security.services.peppers import UnsafeStartError
from app.security.services.secret_files import create_secret, read_secret

SETTING: Final = "MYSYMBOLS_SECURITY__SEALING_KEYS"
NEW_KEY: Final = "my-symbols secrets new-key"


class SealingKeyError(UnsafeStartError):
    """A sealing key is missing, malformed, or not the one of the stored secrets."""


def sealing_key_missing(why: str) -> SealingKeyError:
    """Error with the reason and the settings that help; nothing was changed."""
    return SealingKeyError(
        Code.SECRETS_KEY_MISSING,
        f"{why}; set {SETTING} or {SETTING}_FILE of every process to the same keys, the newest"
        f" first (a new one: `{NEW_KEY}`). Nothing was changed.",
    )


def new_sealing_key() -> str:
    """Text of a new random key."""
    return Fernet.generate_key().decode()


@dataclass(frozen=True, slots=True)
class SecretSealer:
    """Seals texts with the first key and opens them with any.

    Without `keys` they are read from `file` at each use, so that a changed file needs no restart.
    With `may_create` the file is the service's own: the first sealed text creates it, and only its
    owner may read it.
    """

    keys: tuple[str, ...] = field(default=(), repr=False)
    file: Path | None = None
    may_create: bool = True

    def seal(self, text: str) -> str:
        """Raises ConflictError(secrets_key_missing) without a key, and SealingKeyError."""
        keys = self.known()
        if not keys and self.file is not None and self.may_create:
            created = create_secret(self.file, new_sealing_key())
            keys = tuple(map(SealingKey, split_sealing_keys(created)))
        if not keys:
            raise ConflictError(
                Code.SECRETS_KEY_MISSING,
                f"There is no key to seal secrets: set {SETTING} of every process to the same"
                f" one, a new one by `{NEW_KEY}`.",
            )
        return SEALED_MARK + Fernet(keys[0].text).encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Text of a sealed one, and of one that was stored before a key existed.

        Raises ConflictError(secrets_key_missing) when no key fits, and SealingKeyError.
        """
        if not self.is_sealed(sealed):
            return sealed
        keys = self.known()
        try:
            if keys:
                ring = MultiFernet([Fernet(key.text) for key in keys])
                return ring.decrypt(sealed.removeprefix(SEALED_MARK)).decode()
        except InvalidToken:
            pass
        raise ConflictError(
            Code.SECRETS_KEY_MISSING,
            f"The key that sealed this secret is missing: set {SETTING}, or enter the secret"
            " again.",
        ) from None

    def fingerprint(self, secret: str) -> str | None:
        """Fingerprint under the newest key, None without a key. Raises SealingKeyError."""
        keys = self.known()
        return keys[0].fingerprint(secret) if keys else None

    def is_sealed(self, text: str) -> bool:
        return text.startswith(SEALED_MARK)

    def known(self) -> tuple[SealingKey, ...]:
        """Keys that exist, the newest first; none is created. Raises SealingKeyError."""
        if self.keys or self.file is None:
            return tuple(map(SealingKey, self.keys))
        try:
            text = read_secret(self.file) if self.may_create else _read(self.file)
        except (OSError, ValueError):
            raise sealing_key_missing(f"The key file {self.file.name} cannot be read") from None
        keys = () if text is None else split_sealing_keys(text)
        faults = [fault for key in keys if (fault := sealing_key_fault(key)) is not None]
        if faults or (text is not None and not keys):
            reason = faults[0] if faults else "it is empty"
            raise sealing_key_missing(f"The key file {self.file.name} is unusable: {reason}")
        return tuple(map(SealingKey, keys))

    def find_key(self, sealed: str) -> SealingKey | None:
        """The key that sealed a text; None if it is not known. Raises SealingKeyError."""
        token = sealed.removeprefix(SEALED_MARK)
        for key in self.known():
            try:
                Fernet(key.text).decrypt(token)
            except InvalidToken:
                continue
            return key
        return None


def _read(path: Path) -> str | None:
    """Content of an operator's file, whose permissions stay; None if it does not exist."""
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return None
